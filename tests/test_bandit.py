"""Bandits: rewards, tasks, texts and the policies that learn in an episode."""

import dataclasses
import itertools
from functools import cache

import expected_bandit
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.environments.decision_env import DecisionEnv
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.evaluation.tables import result_row
from sdm.llm.episode import Episode
from sdm.llm.policy import episodes_of
from sdm.llm.schema import make_schema
from sdm.policies.arm_plan import (
    PlannedArms,
    _after,
    all_counts,
    arm_plan,
    binomials,
    check_small,
    number_of,
)
from sdm.policies.posterior import log_likelihood
from sdm.policies.registry import check_rule, names, prepare
from sdm.tasks import families, load_family
from sdm.tasks.arm_laws import arm_laws, chances
from sdm.tasks.families.bandit import BanditFamily
from sdm.tasks.hidden_mdp import hidden_model
from sdm.tasks.model_files import save_npz
from sdm.tasks.models import check_model
from sdm.tasks.policy import uniform_random
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.transitions import take_tasks

EASY = BanditFamily(arms=2, separation=0.4)
UNIFORM = BanditFamily(arms=2, separation=0.0)
KINDS = [
    BanditFamily(arms=3),
    BanditFamily(arms=2, law="gaussian", separation=0.0),
    BanditFamily(arms=2, law="gamma", change=0.5, rounds=4),
    BanditFamily(arms=3, feedback="full"),
    BanditFamily(arms=2, law="gamma", feedback="full", levels=4),
    BanditFamily(arms=2, law="gaussian", feedback="full", change=0.5, rounds=3),
]


@cache
def random_episodes(family):
    """Two tasks, and 500 episodes of random arms in each."""
    params = family.parameters(jax.random.key(0), 2, split="train")
    model = family.model(params, "mdp")
    return model, play(model, episodes=500, horizon=4)


def play(model, *, episodes, horizon):
    keys = task_keys(jax.random.key(1), len(model.reward))
    policy = uniform_random(model, horizon)
    return rollout(keys, model, policy, horizon=horizon, episodes=episodes)


@pytest.fixture(scope="module")
def hard():
    """1,000 replicates of the hard instance."""
    family = BanditFamily(arms=5, separation=0.2)
    return make_benchmark(EvaluationConfig(family, 100, 250, 4, support=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "failures", "least"),
    [("thompson", 0.01, 0.28), ("ucb", 0.02, 0.18), ("greedy", 0.48, 0.05)],
)
def test_published_exploration_of_the_hard_instance(hard, policy, failures, least):
    """Krishnamurthy et al. (2024), 1,000 replicates.

    The tolerance is two standard errors of the larger share, 0.48.
    """
    row = result_row(evaluate_untrained(policy, hard))
    assert row["replicates"] == 1000
    assert row["suffix_failure_frequency"] == pytest.approx(failures, abs=0.03)
    assert row["k_min_fraction"] == pytest.approx(least, abs=0.03)
    curve = np.asarray(row["regret_curve"])
    assert len(curve) == 100 and (np.diff(curve) >= 0).all()
    assert row["regret_curve_low"][-1] < curve[-1] < row["regret_curve_high"][-1]
    # Every choice of another arm than the best loses 0.2.
    assert row["regret"] == pytest.approx(20 * (1 - row["agreement"]), rel=1e-6)
    assert row["regret"] == pytest.approx(curve[-1], rel=1e-4)  # rounded to 5 digits
    assert row["regret_exponent_low"] < row["regret_exponent"] < 1.01
    # `greedy` takes the best arm so far, except in the rounds 2 to 5.
    if policy == "greedy":
        assert row["greedy_fraction"] == pytest.approx(95 / 99)
    else:
        assert row["greedy_fraction"] < 0.9


PRIORS = {
    "two tasks": (EASY, [(0.5, (0.7, 0.3)), (0.5, (0.3, 0.7))]),
    # Values of three rounds are polynomials of degree 3 in each mean, which a Gauss
    # rule of two points integrates exactly.
    "uniform": (
        UNIFORM,
        [
            (0.25, (0.5 + x / np.sqrt(12), 0.5 + y / np.sqrt(12)))
            for x, y in itertools.product((-1, 1), repeat=2)
        ],
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_the_plan_is_the_best_of_all_policies(name):
    family, prior = PRIORS[name]
    plan = arm_plan(family, 3)
    wanted = expected_bandit.best_return(prior, 3)
    assert plan.value == pytest.approx(wanted, abs=ROUNDING)
    played = expected_bandit.return_of(chooser(plan), prior, 3)
    assert played == pytest.approx(wanted, abs=ROUNDING)
    # It is not the plan that exploits at once.
    first = expected_bandit.return_of(lambda history: 0, prior, 3)
    assert first < wanted - 0.05


def chooser(plan):
    """The arm of a plan's policy after a history."""
    policy = PlannedArms(plan, 2)
    seen = jnp.zeros((1, 1), jnp.int32)
    key = jax.random.key(0).reshape(1, 1)

    def choose(history):
        memory, reward = None, 0.0
        for t, (_, paid) in enumerate((*history, (None, None))):
            paid_before = jnp.full((1, 1), reward)
            action, memory = policy.act(memory, t, seen, paid_before, key)
            reward = float(paid or 0)
        return int(action[0, 0])

    return choose


@pytest.mark.slow
def test_a_longer_plan_earns_its_value_and_more_than_the_others():
    bed = make_benchmark(EvaluationConfig(UNIFORM, 20, 1000, 2, support=0))
    value = arm_plan(UNIFORM, 20).value
    earned = {}
    for name in ("bayes-optimal", "ucb"):
        result = evaluate_untrained(name, bed)
        earned[name] = result.optimal_values - result.regrets
        error = stats.sem(earned[name])
        if name == "bayes-optimal":
            assert abs(earned[name].mean() - value) < 4 * error
        else:
            assert earned[name].mean() < value + error
            # Paired by task, so that five standard errors are little.
            ahead = earned["bayes-optimal"] - earned[name]
            assert ahead.mean() > -5 * stats.sem(ahead)


def test_a_separation_of_one_is_solved_after_one_loss():
    family = BanditFamily(arms=2, separation=1.0)
    # The first arm pays 1 in every round or never: 10 or 9 of 10 rounds pay.
    assert arm_plan(family, 10).value == pytest.approx(9.5, abs=ROUNDING)


def test_counts_are_numbered_in_order_without_gaps():
    arms, most = 2, 5
    table, known = binomials(arms, most + 1), all_counts(arms, most)
    sums = known.sum(-1)
    wanted = {c for c in itertools.product(range(6), repeat=3) if sum(c) <= most}
    assert {tuple(row) for row in known.tolist()} == wanted
    np.testing.assert_array_equal(number_of(known, table), np.arange(len(known)))
    for total in range(most + 1):  # smaller sums come first
        inside = np.flatnonzero(sums <= total)
        np.testing.assert_array_equal(inside, np.arange(len(inside)))
    few = known[sums < most]
    for j in range(4):
        more = few.copy()
        if j < 3:
            more[:, j] += 1
        found = _after(few, number_of(few, table), j, table)
        np.testing.assert_array_equal(found, number_of(more, table))


@pytest.mark.slow
def test_a_plan_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match=r"at most 3.4e\+07 entries, found 4.3e\+13"):
        check_small(5, 100)
    bed = make_benchmark(EvaluationConfig(BanditFamily(), 60, 1, 1, support=0))
    with pytest.raises(ValueError, match="lower `--horizon` or `--arms`"):
        prepare("bayes-optimal", bed)


@pytest.mark.slow
@pytest.mark.parametrize("name", arm_laws())
def test_laws_are_those_of_scipy(name):
    law, noise = arm_laws()[name], 0.3
    mean = jnp.asarray([0.2, 0.6])
    shape = (np.asarray(mean) / noise) ** 2
    theirs = {
        "bernoulli": stats.bernoulli(np.asarray(mean)),
        "gaussian": stats.norm(np.asarray(mean), noise),
        "gamma": stats.gamma(shape, scale=np.asarray(mean) / shape),
    }[name]
    x = jnp.asarray([1.0, 0.0]) if name == "bernoulli" else jnp.asarray([0.3, 0.8])
    log = theirs.logpmf if name == "bernoulli" else theirs.logpdf
    np.testing.assert_allclose(law.log_density(x, mean, noise), log(x), rtol=1e-9)
    below = law.below(jnp.full(2, 0.5), mean, noise)
    np.testing.assert_allclose(below, theirs.cdf(0.5), rtol=1e-9)
    keys = jax.random.split(jax.random.key(0), (2, 4000))
    drawn = np.asarray(law.draw(keys, jnp.repeat(mean[:, None], 4000, 1), noise))
    # Five standard errors; the variance's is larger for long tails.
    error = theirs.std() / np.sqrt(4000)
    assert (np.abs(drawn.mean(-1) - theirs.mean()) < 5 * error).all()
    np.testing.assert_allclose(drawn.std(-1), theirs.std(), rtol=0.15)


def test_thompson_samples_posterior_means():
    count, total = jnp.asarray([0.0, 10.0]), jnp.asarray([0.0, 7.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    counts, totals = (jnp.broadcast_to(x, (4000, 2)) for x in (count, total))
    drawn = np.asarray(EASY.sample_mean(keys, counts, totals))
    for arm, belief in enumerate((stats.beta(1, 1), stats.beta(8, 4))):
        assert stats.kstest(drawn[:, arm], belief.cdf).pvalue > 1e-3
    normal = dataclasses.replace(EASY, law="gaussian", noise=0.5)
    drawn = np.asarray(normal.sample_mean(keys, counts, totals))
    # The posterior by numerical integration.
    grid = np.linspace(-4, 5, 20_001)
    log = stats.norm.logpdf(grid, 0.5, 1) + 10 * stats.norm.logpdf(0.7, grid, 0.5)
    weight = np.exp(log - log.max())
    cdf = integrate.cumulative_trapezoid(weight, grid, initial=0)
    posterior = np.interp(drawn[:, 1], grid, cdf / cdf[-1])
    assert stats.kstest(posterior, "uniform").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        pytest.param(x, marks=pytest.mark.slow if i in (1, 4) else ())
        for i, x in enumerate(KINDS)
    ],
    ids=[f"{x.law}-{x.feedback}-{x.change}" for x in KINDS],
)
def test_rewards_have_the_means_by_which_the_solver_plans(family):
    model, played = random_episodes(family)
    check_model(model)
    state, action = np.asarray(played.observation), np.asarray(played.action)
    reward, expected = np.asarray(played.reward), np.asarray(model.reward)
    for task in range(2):
        surplus = reward[task] - expected[task, state[task], action[task]]
        for t, arm in itertools.product(range(4), range(family.arms)):
            one = surplus[:, t][action[task][:, t] == arm]
            assert abs(one.mean()) < 4.5 * stats.sem(one) + ROUNDING
        # Rounds are independent: the correlation of 500 pairs has error 1/√500.
        assert abs(np.corrcoef(surplus[:, 0], surplus[:, 1])[0, 1]) < 4.5 / 500**0.5
    if family.values:
        assert np.isin(reward.round(9), np.round(family.values, 9)).all()
    if family.shows_all:  # the next observation shows what was paid
        shown = np.asarray(family.shown(played.observation))[:, :, 1:]
        own = np.take_along_axis(shown, action[:, :, :-1, None], -1)[..., 0]
        np.testing.assert_allclose(own, reward[:, :, :-1], atol=ROUNDING)
        frequent = np.asarray(model.transition)[:, 0, 0]
        np.testing.assert_allclose(frequent.sum(-1), 1, atol=ROUNDING)
    oracle = np.asarray(model.reward).max(-1)
    assert (oracle - expected[..., 0] >= 0).all()


@pytest.mark.slow
def test_rewards_leave_the_other_random_numbers_alone_and_depend_on_their_episode():
    model, played = random_episodes(KINDS[3])
    certain = dataclasses.replace(model, law=None)
    same = play(certain, episodes=500, horizon=4)
    np.testing.assert_array_equal(same.observation, played.observation)
    np.testing.assert_array_equal(same.action, played.action)
    model, played = random_episodes(KINDS[2])
    keys, last = task_keys(jax.random.key(1), 2)[1:], take_tasks(model, np.s_[1:])
    policy = uniform_random(last, 3)
    fewer = rollout(keys, last, policy, horizon=3, episodes=2)
    np.testing.assert_allclose(fewer.reward[0], played.reward[1, :2, :3])
    assert len(np.unique(played.reward)) > 1000


@pytest.mark.slow
def test_means_change_as_often_as_asked_and_the_oracle_follows_them():
    family = BanditFamily(arms=3, separation=0.0, change=0.25, rounds=20)
    params = family.parameters(jax.random.key(0), 100, split="test")
    mean = np.asarray(params["mean"])
    changed = (np.diff(mean, axis=1) != 0).any(-1)
    error = np.sqrt(0.25 * 0.75 / changed.size)
    assert abs(changed.mean() - 0.25) < 4 * error
    assert ((np.diff(mean, axis=1) != 0).all(-1) == changed).all()
    bed = make_benchmark(EvaluationConfig(family, 25, 4, 2, support=0))
    mean = np.asarray(bed.tasks.params["mean"])
    later = np.concatenate([mean, np.repeat(mean[:, -1:], 5, 1)], 1)  # the last stay
    best = later.argmax(-1)[:, None].repeat(2, 1)
    np.testing.assert_array_equal(bed.optimal_played.action, best)
    np.testing.assert_allclose(
        np.asarray(bed.solution.value), later.max(-1).sum(-1), rtol=1e-9
    )
    same = family.parameters(jax.random.key(0), 1, split="test", first=jnp.int32(7))
    np.testing.assert_array_equal(same["mean"][0], params["mean"][7])


def test_means_have_the_beta_distribution_of_their_concentration():
    family = BanditFamily(arms=3, separation=0.0, mean_concentration=0.5)
    mean = np.asarray(family.parameters(jax.random.key(1), 1000, split="train")["mean"])
    assert stats.kstest(mean.ravel(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3
    # One of two arms paid twice and failed once: Beta(1/2 + 2, 1/2 + 1).
    chance = family.predictive(np.array([[2, 0, 0]]), np.array([[1, 0, 0]]))
    np.testing.assert_allclose(chance, [[2.5 / 4, 0.5, 0.5]], rtol=1e-12)
    # The best arm after one round each is one that was paid.
    plan = BanditFamily(arms=2, separation=0.0, mean_concentration=0.01)
    hardly = plan.predictive(np.array([[1, 0]]), np.array([[0, 1]]))
    np.testing.assert_allclose(hardly, [[1.01 / 1.02, 0.01 / 1.02]], rtol=1e-9)


def test_the_separation_puts_the_best_arm_anywhere():
    params = BanditFamily().parameters(jax.random.key(0), 500, split="train")
    mean = np.asarray(params["mean"])[:, 0]
    np.testing.assert_allclose(np.sort(mean, -1), [[0.4] * 4 + [0.6]] * 500)
    often = np.bincount(mean.argmax(-1), minlength=5)
    assert stats.chisquare(often).pvalue > 1e-3
    found, weight = BanditFamily().prior()
    np.testing.assert_allclose(weight, 0.2)
    np.testing.assert_array_equal(np.asarray(found["mean"])[:, 0].argmax(-1), range(5))


@pytest.mark.parametrize("family", [KINDS[0], KINDS[3]], ids=["bandit", "full"])
def test_demonstrations_weigh_candidates_by_all_rewards_that_they_show(family):
    params, _ = family.prior()
    models = family.model(params, "mdp")
    _, played = random_episodes(family)
    played = jax.tree.map(lambda x: x[:, :2, :3], played)
    found = np.asarray(log_likelihood(models, played, rewards=True))
    mean = np.asarray(params["mean"])[:, 0]
    shown = np.asarray(family.shown(played.observation)) if family.shows_all else None
    for task, g in itertools.product(range(2), range(3)):
        wanted = 0.0
        for episode, t in itertools.product(range(2), range(3)):
            arm = int(played.action[task, episode, t])
            paid = {arm: float(played.reward[task, episode, t])}
            if shown is not None and t < 2:
                paid = dict(enumerate(shown[task, episode, t + 1]))
            for a, r in paid.items():
                wanted += np.log(mean[g, a] if r else 1 - mean[g, a])
        assert found[task, g] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_full_information_ends_exploration():
    """All arms' rewards are seen: to follow the leader has a regret that levels."""
    family = BanditFamily(arms=2, separation=0.4, feedback="full")
    bed = make_benchmark(EvaluationConfig(family, 40, 200, 2, support=0))
    row = result_row(evaluate_untrained("greedy", bed))
    assert row["greedy_fraction"] == 1
    curve = np.asarray(row["regret_curve"])
    assert curve[0] == pytest.approx(0.2, abs=0.03)  # a random arm: half of 0.4
    assert curve[-1] - curve[19] < 0.1 * curve[-1]
    # The hindsight regret is that of realised rewards; a fixed arm has some, too.
    hindsight = np.asarray(row["hindsight_regret_curve"])
    assert len(hindsight) == 39
    fixed = result_row(evaluate_untrained("always-arm-0", bed))
    assert fixed["hindsight_regret_curve"][-1] > 2 * hindsight[-1]


@pytest.mark.slow
def test_an_episode_is_text_with_the_rewards_that_the_agent_saw():
    spaces = BanditFamily().spaces
    one = Episode((0, 0, 0), (2, 1), (1.0, 0.0))
    compact, words, paper = (
        make_schema(name, spaces, "mdp", rewards=True)
        for name in ("compact", "words", "paper")
    )
    assert compact.render(one) == "0c.0b0"
    assert words.render(one) == (
        "next round, arm 2, reward 1.00. next round, arm 1, reward 0.00. next round,"
    )
    assert paper.render(one).endswith("<A_2> 1, <R_2> 0.00, <O_3> 0, <A_3>")
    for family in KINDS:
        _, played = random_episodes(family)
        played = jax.tree.map(lambda x: x[:1, :5], played)
        for name in ("words", "compact"):
            schema = make_schema(name, family.spaces, "mdp", rewards=True)
            for episode in episodes_of(played)[0]:
                read = schema.parse(schema.render(episode))
                assert read.observations == episode.observations
                # Two decimals are written.
                np.testing.assert_allclose(read.rewards, episode.rewards, atol=0.00501)


def test_a_gymnasium_environment_draws_the_rewards():
    model = EASY.model(EASY.parameters(jax.random.key(0), 1, split="train"), "mdp")
    env = DecisionEnv(take_tasks(model, 0), horizon=150)
    env.reset(seed=0)
    paid = [env.step(0)[1] for _ in range(150)]
    assert set(paid) == {0.0, 1.0}
    mean = float(model.reward[0, 0, 0])
    assert abs(np.mean(paid) - mean) < 4 * np.sqrt(0.21 / 150)


def test_policies_refuse_what_they_cannot_do(tmp_path):
    fitting = set(names(BanditFamily(), "mdp"))
    assert {"ucb", "thompson", "greedy", "epsilon-greedy", "bayes-optimal"} <= fitting
    assert "bayes-adaptive" not in fitting
    with pytest.raises(ValueError, match="random rewards"):
        check_rule("bayes-adaptive", BanditFamily(), "mdp")
    for options, why in (
        ({"law": "gaussian"}, "must be 0 or 1"),
        ({"change": 0.1}, "means must be constant"),
        ({"feedback": "full", "arms": 2}, "its own reward only"),
    ):
        with pytest.raises(ValueError, match=why):
            check_rule("bayes-optimal", load_family("bandit", options), "mdp")
    with pytest.raises(ValueError, match="it is for bandits"):
        check_rule("ucb", families()["energy"](), "mdp")
    model = EASY.model(EASY.prior().params, "mdp")
    with pytest.raises(ValueError, match="law: a model file cannot hold random"):
        save_npz(model, tmp_path / "model.npz")
    with pytest.raises(ValueError, match="cannot learn from random rewards"):
        hidden_model(model, EASY.prior().weight, observes_reward=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": 1}, "arms = 1"),
        ({"separation": 1.5}, "separation = 1.5: must lie between 0 and 1"),
        ({"law": "poisson"}, "law = 'poisson': must be one of bernoulli, gaussian"),
        ({"feedback": "none"}, "feedback = 'none': must be one of bandit, full"),
        ({"law": "gamma", "noise": 0.0}, "noise = 0: must be above 0 for law"),
        ({"law": "gamma", "separation": 0.0}, "means must be above 0, found 0"),
        ({"separation": 0.0, "mean_max": 1.2}, "means must lie between 0 and 1"),
        ({"separation": 0.0, "mean_min": 1.0, "mean_max": 0.5}, "is larger than"),
        ({"feedback": "full", "arms": 9}, "at most 512 states, found 1024"),
        ({"rounds": 0}, "rounds = 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        load_family("bandit", options)


def test_rounded_rewards_have_the_chances_of_their_cells():
    law, values = arm_laws()["gaussian"], (0.0, 0.5, 1.0)
    found = np.asarray(chances(law, jnp.asarray([0.4]), 0.3, values))[0]
    ends = stats.norm(0.4, 0.3).cdf([-np.inf, 0.25, 0.75, np.inf])
    np.testing.assert_allclose(found, np.diff(ends), rtol=1e-9)
