"""A language model plays what it scores highest, through the policy protocol."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_schemas import ALL, COMPACT, PAPER
from small_llama import small_llama
from test_scoring import score_from_scratch
from tolerances import SINGLE

from sdm.data.benchmark import EvaluationConfig
from sdm.evaluation.evaluate import check_policy
from sdm.llm.cached_rows import CachedRows
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.policy import EpisodeTexts, LanguageModelPolicy, episodes_of
from sdm.llm.tiny import tiny_tokenizer
from sdm.policies.spec import ActingOptions
from sdm.solvers_jax import EnergyFamily, rollout, solve
from sdm.tasks import load_family
from sdm.tasks.policy import deterministic
from sdm.tasks.rollout import rollout_on_host, task_keys

TASKS, EPISODES, HORIZON = 2, 2, 3


@pytest.fixture(scope="module")
def model():
    """A model with large weights, so that the text decides the action."""
    return small_llama(1, len(tiny_tokenizer()), width=64, factor=8)


@pytest.fixture(scope="module")
def bed():
    mdp = EnergyFamily().sample(jax.random.key(0), TASKS)
    oracle = deterministic(solve(mdp, horizon=HORIZON).policy, 3)
    keys = task_keys(jax.random.key(1), TASKS)
    support = rollout(keys, mdp, oracle, horizon=HORIZON, episodes=2)
    return mdp, task_keys(jax.random.key(2), TASKS), episodes_of(support)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_action_is_the_best_scored_in_its_whole_text(bed, model, name):
    mdp, keys, support = bed
    tokenizer, schema = tiny_tokenizer(), ALL[name]
    begin = partial(CachedRows, model)
    policy = LanguageModelPolicy(begin, tokenizer, schema, support, 3)
    played = rollout_on_host(keys, mdp, policy, horizon=HORIZON, episodes=EPISODES)
    answers = [schema.answer(a) for a in range(3)]
    chosen = set()
    for task, episodes in enumerate(episodes_of(played)):
        for e in episodes:
            for t in range(HORIZON):
                so_far = Episode(e.observations[: t + 1], e.actions[:t], e.rewards[:t])
                text = render_prompt(schema, support[task], so_far)
                scores = score_from_scratch(model, tokenizer, text, answers)
                # The best, or one that rounding cannot tell from it.
                assert scores[e.actions[t]] >= max(scores) - 1e-4
                chosen.add(e.actions[t])
    assert len(chosen) > 1  # a model that always says the same would prove little


def test_rewards_in_the_text_are_those_that_were_paid(bed, model, monkeypatch):
    mdp, keys, support = bed
    seen = []
    schema = PAPER
    monkeypatch.setattr(
        "sdm.llm.policy.render_prompt",
        lambda *args: seen.append(args[2]) or render_prompt(*args),
    )
    begin = partial(CachedRows, model)
    policy = LanguageModelPolicy(begin, tiny_tokenizer(), schema, support, 3)
    played = rollout_on_host(keys, mdp, policy, horizon=HORIZON, episodes=EPISODES)
    last = seen[-TASKS * EPISODES :]
    for row, episode in enumerate(last):
        task, n = divmod(row, EPISODES)
        np.testing.assert_allclose(
            episode.rewards, played.reward[task, n, :-1], rtol=SINGLE
        )
        assert episode.observations == tuple(played.observation[task, n].tolist())


def test_episodes_of_the_same_text_are_scored_once(bed, model):
    """At the first stage, those of a task that begin in the same state."""
    mdp, keys, support = bed
    fed = []

    class Counted(CachedRows):
        def score(self, targets, suffixes, parents):
            fed.append(targets)
            return super().score(targets, suffixes, parents)

    policy = LanguageModelPolicy(
        partial(Counted, model),
        tiny_tokenizer(),
        COMPACT,
        support,
        3,
    )
    played = rollout_on_host(keys, mdp, policy, horizon=HORIZON, episodes=8)
    starts = [set(row) for row in played.observation[:, :, 0].tolist()]
    assert len(fed[0]) == sum(map(len, starts)) < TASKS * 8
    assert all(len({tuple(ids) for ids in stage}) == len(stage) for stage in fed)
    assert len(policy.invalid) == TASKS * 8 * HORIZON


def test_no_demonstrations_is_possible(bed, model):
    mdp, keys, _ = bed
    begin = partial(CachedRows, model)
    policy = LanguageModelPolicy(begin, tiny_tokenizer(), COMPACT, [[], []], 3)
    played = rollout_on_host(keys, mdp, policy, horizon=HORIZON, episodes=EPISODES)
    assert played.action.shape == (TASKS, EPISODES, HORIZON)


def test_a_schema_that_cannot_write_a_test_is_refused_before_a_model_is_loaded():
    """More actions than letters."""
    many = EvaluationConfig(load_family("bandit", {"arms": 27}), 3, 2, 1)
    with pytest.raises(ValueError, match="at most 26 actions, found 27"):
        check_policy("icl:tiny", many)  # whose schema is `compact`
    check_policy("icl:tiny", many, ActingOptions(schema="words"))
    with pytest.raises(ValueError, match="leave out `--quantize`"):
        check_policy("icl:tiny", many, ActingOptions("paper", "nf4", "vllm"))


@pytest.mark.slow
def test_names_and_configurations_are_read_without_pytorch_or_jax():
    code = (
        "import sys; import sdm.llm.recipes as r; r.recipe('d', 'tiny')\n"
        "assert not {'jax', 'torch'} & set(sys.modules)\n"
        "import sdm.llm.policy_spec as p; p.language_model('icl:tiny')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.3, 1.0, float("inf")])
def test_sampled_actions_have_the_probabilities_of_their_texts(bed, model, temperature):
    _, _, support = bed
    episodes = 2000
    make = partial(
        *(LanguageModelPolicy, partial(CachedRows, model), tiny_tokenizer()),
        *(COMPACT, support, 3),
    )
    seen = jnp.ones((TASKS, episodes), jnp.int32)
    ask = (seen, jnp.zeros(seen.shape))
    keys = jax.random.split(jax.random.key(3), seen.shape)
    scores = make().action_scores(EpisodeTexts(), *ask)
    scores = scores.reshape(TASKS, episodes, 3)[:, 0].astype(float)
    wanted = np.exp(scores / temperature)
    wanted /= wanted.sum(-1, keepdims=True)
    action, _ = make(temperature).act(EpisodeTexts(), 0, *ask, keys)
    found = (np.asarray(action)[..., None] == np.arange(3)).mean(1)
    # Five standard deviations of a share of 2000 draws.
    deviation = np.sqrt(wanted * (1 - wanted) / episodes)
    assert (np.abs(found - wanted) <= 5 * deviation + 1 / episodes).all()
    assert np.ptp(found) > 0.1 or temperature > 1
    again, _ = make(temperature).act(EpisodeTexts(), 0, *ask, keys)
    greedy, _ = make(1e-9).act(EpisodeTexts(), 0, *ask, keys)
    assert (again == action).all()
    assert (np.asarray(greedy) == scores.argmax(-1)[:, None]).all()
