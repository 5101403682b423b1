"""Models act as scoring whole texts does, whatever their cache is good for."""

import dataclasses
import logging
import sys

import numpy as np
import pytest
from plain_schemas import ALL
from small_llama import small_llama
from small_models import MODELS, small_model
from test_scoring import score_from_scratch

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate
from sdm.llm.acting import language_model_policy
from sdm.llm.cached_rows import CachedRows
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.tiny import tiny_tokenizer
from sdm.policies.spec import ActingOptions
from sdm.solvers_jax import EnergyFamily
from sdm.tasks.rollout import rollout_on_host, task_keys
from sdm.tasks.streams import Stream, stream_key

# Random demonstrations have different lengths.
CONFIG = EvaluationConfig(
    EnergyFamily(), horizon=3, tasks=3, trajectories=2, demonstrations="random"
)
WHY = {
    "Mistral": "attention window of 48 tokens",
    "LFM2": "a lfm2 has states besides keys and values",
    "Qwen3-Next": "a qwen3_next has states besides keys and values",
    "Mamba": "a mamba has states besides keys and values",
    "MPT": r"differ by 0\.\d+ from those of whole texts",
    "GPT-Neo": "attention window of 48 tokens",
    "Llama-4": "attention window of 96 tokens",
}


@pytest.fixture(scope="module")
def bed():
    return make_benchmark(CONFIG)


@pytest.fixture(autouse=True)
def quiet():
    """Transformers logs which faster kernels are not installed."""
    logging.getLogger("transformers").setLevel(logging.ERROR)


def use(monkeypatch, model):
    found = model, tiny_tokenizer()
    monkeypatch.setattr("sdm.llm.acting.load_base", lambda *_, **options: found)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_scores_actions_as_in_whole_texts(bed, monkeypatch, name):
    tokenizer, schema = tiny_tokenizer(), ALL["paper"]
    model = small_model(name, 0, len(tokenizer))
    use(monkeypatch, model)
    if name in WHY:
        with pytest.warns(UserWarning, match=f"`icl:tiny`: .*{WHY[name]}.*: whole"):
            maker = language_model_policy("icl:tiny", bed, schema="paper")
    else:
        maker = language_model_policy("icl:tiny", bed, schema="paper")
    scored = []

    class Recorded(LanguageModelPolicy):
        def action_scores(self, *args):
            scored.append(super().action_scores(*args))
            return scored[-1]

    policy = Recorded(maker.begin, tokenizer, schema, maker.support, 3)
    keys = task_keys(stream_key(0, Stream.TEST_EPISODES), CONFIG.tasks)
    options = {"horizon": CONFIG.horizon, "episodes": CONFIG.trajectories}
    played = rollout_on_host(keys, bed.tasks.world, policy, **options)
    answers = [schema.answer(a) for a in range(3)]
    wanted = [
        score_from_scratch(
            model,
            tokenizer,
            render_prompt(
                schema,
                shown,
                Episode(e.observations[: t + 1], e.actions[:t], e.rewards[:t]),
            ),
            answers,
        )
        for t in range(CONFIG.horizon)
        for shown, episodes in zip(maker.support, episodes_of(played), strict=True)
        for e in episodes
    ]
    # float32 through two layers, in another order of summation.
    np.testing.assert_allclose(np.concatenate(scored), wanted, rtol=1e-4, atol=1e-4)
    assert np.ptp(wanted, axis=0).max() > 0.1  # the texts do decide


# The first, second and last decision; each compared one is the second of two calls.
@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 3, 7])
def test_a_cache_that_mixes_rows_up_is_detected(monkeypatch, call):
    config = dataclasses.replace(CONFIG, horizon=5)
    use(monkeypatch, small_llama(0, len(tiny_tokenizer()), width=64, factor=8))
    plays = make_benchmark(config)
    options = ActingOptions(schema="paper")
    (wanted,) = evaluate(["icl:tiny"], plays, options)  # without a warning
    right, calls = CachedRows.score, []

    def wrong(self, targets, suffixes, parents):
        scores = right(self, targets, suffixes, parents)
        calls.append(None)
        return np.roll(scores, 1, 0) if len(calls) == call + 1 else scores

    monkeypatch.setattr(CachedRows, "score", wrong)
    with pytest.warns(UserWarning, match=r"`icl:tiny`: log-probabilities with cached"):
        (found,) = evaluate(["icl:tiny"], plays, options)
    np.testing.assert_array_equal(found.returns, wanted.returns)


def test_a_model_that_fails_with_a_cache_reads_whole_texts(bed, monkeypatch):
    model = small_llama(0, len(tiny_tokenizer()), width=32, factor=4)
    use(monkeypatch, model)
    forward = type(model).forward

    def stateless(self, input_ids, attention_mask, logits_to_keep, use_cache):
        return forward(self, input_ids, attention_mask, logits_to_keep=logits_to_keep)

    monkeypatch.setattr(type(model), "forward", stateless)
    with pytest.warns(UserWarning, match=r"be cached \(TypeError\): whole"):
        maker = language_model_policy("icl:tiny", bed, schema="paper")
    assert maker.rows == sys.maxsize

    def fails(self, input_ids, **options):
        raise RuntimeError("needs a kernel\nand more")

    monkeypatch.setattr(type(model), "forward", fails)
    with pytest.raises(ValueError, match=r"llama cannot score texts: needs a kernel$"):
        language_model_policy("icl:tiny", bed, schema="paper")
