"""vLLM scores as our own rows do; what needs vLLM itself runs where it is installed."""

import importlib.util
import sys
from functools import cache

import numpy as np
import pytest
from small_llama import small_llama
from test_scoring import score_ids

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate
from sdm.llm.acting import language_model_policy
from sdm.llm.bases import BaseModelError, load_base
from sdm.llm.cached_rows import CachedRows
from sdm.llm.context import ContextError
from sdm.llm.schema import schemas
from sdm.llm.tiny import tiny_tokenizer
from sdm.llm.vllm_rows import Engine, VllmRows, start_engine
from sdm.policies.spec import ActingOptions
from sdm.solvers_jax import EnergyFamily

# Of torch and vLLM about themselves, nothing that we could mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
INSTALLED = importlib.util.find_spec("vllm") is not None
SUFFIXES = [[[1], [2, 3], [2, 4, 5]], [[7, 8], [9], [6]]]
TARGETS = [[5, 6, 7, 8], [5, 6, 10]]


class StandIn(Engine):
    """Answers as the engine does, from a model run on whole texts."""

    longest = 12

    def next_log_probabilities(self, texts, wanted):
        """Score each text anew."""
        return [
            {token: float(score_ids(self.vllm, text)[token]) for token in tokens}
            for text, tokens in zip(texts, wanted, strict=True)
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base with large random weights, so that its texts decide its actions."""
    size = {"width": 128, "max_position_embeddings": 512}
    model = small_llama(0, len(tiny_tokenizer()), factor=4, **size)
    where = tmp_path_factory.mktemp("base")
    model.save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return str(where)


def test_candidates_of_any_length_are_scored_as_by_our_rows(folder):
    model = load_base(folder)[0].eval()
    asked = []

    class Counted(StandIn):
        def next_log_probabilities(self, texts, wanted):
            asked.append(len(texts))
            return super().next_log_probabilities(texts, wanted)

    found = VllmRows(Counted(model), []).score(TARGETS, SUFFIXES, [0, 0])
    wanted = CachedRows(model, [[5, 6]]).score(TARGETS, SUFFIXES, [0, 0])
    # float32, in another order of summation.
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert asked == [5]  # two texts, and three candidates' beginnings


def test_a_text_too_long_for_the_engine_is_refused(folder):
    rows = VllmRows(StandIn(load_base(folder)[0]), [])
    with pytest.raises(ContextError, match="context of 12 tokens, found 13"):
        rows.score([[1] * 12], [[[1], [2]]], [0])


@pytest.fixture(scope="module")
def bed():
    return make_benchmark(EvaluationConfig(EnergyFamily(), 4, 3, 5))


def test_what_vllm_does_not_take_is_refused(bed):
    with pytest.raises(ValueError, match="`sdm merge runs/a --out MERGED`, then"):
        language_model_policy("runs/a", bed, backend="vllm")
    with pytest.raises(ValueError, match="leave out `--quantize`"):
        language_model_policy("icl:tiny", bed, backend="vllm", quantize="nf4")


def test_vllm_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if, where it is
    with pytest.raises(BaseModelError, match="vLLM is not installed"):
        start_engine("smollm2")


@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed")
def test_vllm_plays_what_our_rows_play(folder, bed, monkeypatch):
    """Every action of a whole test, in both wordings."""
    with pytest.raises(BaseModelError, match="`tiny` has no weights"):
        start_engine("tiny")
    with pytest.raises(BaseModelError, match="cannot load the base `no/such`"):
        start_engine("no/such")
    monkeypatch.setattr("sdm.llm.acting.start_engine", cache(start_engine))
    for schema in schemas():
        results = [
            evaluate([f"icl:{folder}"], bed, ActingOptions(schema, backend=backend))[0]
            for backend in ("torch", "vllm")
        ]
        ours, theirs = results
        np.testing.assert_array_equal(theirs.returns, ours.returns)
        assert theirs.agreement == ours.agreement
        # float32, in another order of summation.
        assert theirs.invalid_mass == pytest.approx(ours.invalid_mass, rel=1e-3)
