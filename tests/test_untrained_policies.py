"""Policies without learning: against enumeration, and where they must agree."""

import dataclasses
import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_pomdp
from scipy import integrate
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.policies import count_plan
from sdm.policies.posterior import Posterior, log_likelihood, posterior
from sdm.policies.prepared import table
from sdm.policies.qmdp import mixture, observation_as_state, qmdp
from sdm.policies.registry import check_rule, names, prepare
from sdm.policies.untrained.bayes_imitation import SLIP, imitation
from sdm.policies.untrained.behaviour_cloning import clone
from sdm.policies.untrained.posterior_sampling import PosteriorSampling, expected_return
from sdm.solvers_jax import EnergyFamily, Trajectory, rollout, solve
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.tasks import families
from sdm.tasks.belief import belief_filter, true_model
from sdm.tasks.models import states_observed
from sdm.tasks.policy import TabularPolicy, uniform_random
from sdm.tasks.rollout import discounted_return, task_keys
from sdm.tasks.transition_lists import sparse_transition
from sdm.tasks.transitions import dense

SMALL = EnergyFamily(max_energy=2, q=0.7)
P = jnp.array([0.3, 0.5, 0.8])


def play(model, policy, *, horizon, episodes, seed=0):
    keys = task_keys(jax.random.key(seed), len(model.reward))
    return rollout(keys, model, policy, horizon=horizon, episodes=episodes)


def random_support(model, *, horizon, episodes):
    policy = uniform_random(states_observed(model), horizon)
    return play(model, policy, horizon=horizon, episodes=episodes)


def believed(family, support, kind):
    """The posterior over the prior's candidates, from demonstrations alone."""
    params, weight = family.prior()
    models = family.model(params, kind)
    log = jnp.log(weight)[None] + log_likelihood(models, support, rewards=False)
    return Posterior(params, models, jax.nn.softmax(log, axis=-1))


def mean_p(found):
    return found.weight @ found.params["p"]


def estimate_p(family, support):
    state, action = np.asarray(support.observation), np.asarray(support.action)
    moves = family.tally(state[..., :-1], action[..., :-1], state[..., 1:])
    return family.posterior_mean(moves.sum((1, 2)))["p"]


def sample_and_plan(found, horizon):
    q = backward_induction(states_observed(found.models), horizon=horizon).q
    return PosteriorSampling(found, q, rewards=False)


def assert_is_the_mean(value, played, discount):
    """Within five standard errors, task by task."""
    returns = np.asarray(discounted_return(played.reward, discount))
    error = returns.std(-1, ddof=1) / np.sqrt(returns.shape[-1])
    assert (np.abs(returns.mean(-1) - np.asarray(value)) < 5 * error + 1e-12).all()


@pytest.mark.slow
def test_the_likelihood_of_symbols_is_the_sum_over_all_paths_of_states():
    support = random_support(SMALL.pomdp(P), horizon=3, episodes=2)
    found = believed(SMALL, support, "pomdp")
    models, points = found.models, len(found.params["p"])
    z = np.asarray(models.initial_observation)
    move, start = np.asarray(models.transition), np.asarray(models.initial)
    for task in range(len(P)):
        likelihood = np.ones(points)
        for seen, done in zip(
            np.asarray(support.observation[task]),
            np.asarray(support.action[task]),
            strict=True,
        ):
            total = 0.0
            for path in itertools.product(range(3), repeat=3):
                chance = start[:, path[0]] * z[:, path[0], seen[0]]
                for t in (1, 2):
                    chance = chance * move[:, path[t - 1], done[t - 1], path[t]]
                    chance = chance * z[:, path[t], seen[t]]
                total = total + chance
            likelihood = likelihood * total
        wanted = likelihood / likelihood.sum()
        np.testing.assert_allclose(found.weight[task], wanted, rtol=1e-9)
        assert wanted.max() / wanted.min() > 1.05  # the demonstrations say something


@pytest.mark.slow
def test_symbols_that_are_the_states_say_what_states_say():
    family = EnergyFamily(q=1.0)
    support = random_support(family.mdp(P), horizon=10, episodes=4)
    seen, shown = (believed(family, support, kind) for kind in ("mdp", "pomdp"))
    np.testing.assert_allclose(seen.weight, shown.weight, rtol=1e-9, atol=1e-300)
    # The grid against the exact mean: the midpoint rule's error in cells of 0.005.
    np.testing.assert_allclose(mean_p(seen), estimate_p(family, support), atol=1e-4)


def test_no_demonstrations_leave_the_prior():
    none = Trajectory(
        *(jnp.zeros((3, 0, 5), kind) for kind in (jnp.int32,) * 2), jnp.zeros((3, 0, 5))
    )
    for kind in ("mdp", "pomdp"):
        found = believed(EnergyFamily(), none, kind)
        np.testing.assert_allclose(mean_p(found), 0.55, rtol=ROUNDING)


@pytest.mark.slow
def test_qmdp_weighs_the_values_of_states_by_the_belief():
    model = random_pomdp(0, batch=(4,), symbols=3)
    policy = qmdp(model, horizon=4)
    seen = states_observed(model)
    q = np.asarray(solve(seen, horizon=4).q)
    beliefs = np.random.default_rng(0).dirichlet(np.ones(3), (4, 50))
    for t in range(4):
        found = policy.plan.action(t, jnp.asarray(beliefs))
        wanted = np.array(
            [(b @ q[task, t]).argmax(-1) for task, b in enumerate(beliefs)]
        )
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_with_states_in_sight_every_plan_for_the_truth_is_optimal():
    family = EnergyFamily(q=1.0)
    hidden, seen = family.pomdp(P), family.mdp(P)
    best = solve(seen, horizon=8)
    wanted = play(
        seen, TabularPolicy(jax.nn.one_hot(best.policy, 3)), horizon=8, episodes=20
    )
    for policy in (qmdp(hidden, horizon=8), observation_as_state(hidden, horizon=8)):
        found = play(hidden, policy, horizon=8, episodes=20)
        np.testing.assert_array_equal(found.action, wanted.action)
    with pytest.raises(ValueError, match="2 symbols cannot stand for 3 states"):
        observation_as_state(random_pomdp(0, batch=(1,)), horizon=2)


@pytest.mark.slow
def test_a_mixture_is_filtered_as_one_task_with_the_model_hidden():
    model, _ = EnergyFamily(models=3).apomdp(jax.random.split(jax.random.key(0), 3), P)
    whole, parts = (
        belief_filter(mixture(model)),
        belief_filter(model, believe="mixture"),
    )
    random = np.random.default_rng(0)
    one, other = (
        f.see_first(f.start(6), jnp.asarray(random.integers(0, 10, (3, 6))))
        for f, random in (
            (whole, np.random.default_rng(1)),
            (parts, np.random.default_rng(1)),
        )
    )
    for _ in range(4):
        action, symbol = (jnp.asarray(random.integers(0, n, (3, 6))) for n in (3, 10))
        one, other = (
            whole.update(one, action, symbol),
            parts.update(other, action, symbol),
        )
    flat = np.asarray(other.joint).reshape(3, 6, -1)
    np.testing.assert_allclose(one.belief, flat, rtol=ROUNDING, atol=ROUNDING)


def adaptive_value(family, n, k, state, horizon):
    """The optimum by expectimax over histories, the posterior by quadrature."""

    def mean(n, k):
        def weight(p):
            return p**k * (1 - p) ** (n - k)

        span = (family.p_min, family.p_max)
        return (
            integrate.quad(lambda p: p * weight(p), *span)[0]
            / integrate.quad(weight, *span)[0]
        )

    if horizon == 0:
        return 0.0
    options = []
    for to, pay in (
        (min(state + 1, family.max_energy), -family.charge_cost),
        (max(state - 1, 0), state / family.max_energy),
    ):
        if to == state:
            after = adaptive_value(family, n, k, state, horizon - 1)
        else:
            chance = mean(n, k)
            won = adaptive_value(family, n + 1, k + 1, to, horizon - 1)
            lost = adaptive_value(family, n + 1, k, state, horizon - 1)
            after = chance * won + (1 - chance) * lost
        options.append(pay + family.discount * after)
    return max(options)


def test_the_adaptive_plan_is_the_best_over_all_histories():
    """Its value under the prior, by integration over p, against expectimax."""
    family = EnergyFamily(max_energy=3, p_min=0.1, p_max=0.95)
    bed = make_benchmark(EvaluationConfig(family, 5, 1, 1, support=0))
    points, weights = np.polynomial.legendre.leggauss(40)
    p = 0.1 + 0.85 * (points + 1) / 2
    policy = count_plan.count_plan(bed)
    every = count_plan.CountPolicy(jnp.repeat(policy.plan, len(p), axis=0), policy.step)
    value = np.asarray(count_plan.expected_return(every, family.mdp(jnp.asarray(p))))
    wanted = np.mean([adaptive_value(family, 0, 0, s, 5) for s in range(4)])
    np.testing.assert_allclose(weights @ value / 2, wanted, rtol=ROUNDING)


@pytest.fixture(scope="module")
def many():
    """Enough tasks from the prior that an average tells one policy from another."""
    return make_benchmark(EvaluationConfig(EnergyFamily(), 10, 2000, 1))


@pytest.mark.slow
def test_whoever_keeps_learning_loses_least_on_average(many):
    fitting = [*names(EnergyFamily(), "mdp"), "always-work"]
    value = {name: np.asarray(prepare(name, many).value) for name in fitting}
    best = value["oracle"]
    gaps = {name: 100 * ((best - v) / best).mean() for name, v in value.items()}
    assert gaps["qmdp"] == gaps["oracle"] == 0
    # Published for these tasks; CE depends on the demonstrations that were drawn.
    assert gaps["random"] == pytest.approx(57.4, abs=0.6)
    assert gaps["always-work"] == pytest.approx(14.5, abs=0.6)
    assert gaps["mean-plan"] == pytest.approx(4.2, abs=0.3)
    assert gaps["ce"] == pytest.approx(0.8, abs=0.2)
    adaptive, sampled = value["bayes-adaptive"].mean(), value["psrl"].mean()
    assert adaptive > value["ce"].mean() > sampled > value["mean-plan"].mean()
    assert gaps["bc"] < gaps["random"]
    # Ten times as much lies between them: choices say more about p than moves.
    assert gaps["bayes-imitation"] < gaps["ce"] / 2


@pytest.mark.slow
def test_a_known_p_leaves_nothing_to_learn():
    family = EnergyFamily(p_min=0.6, p_max=0.6)
    bed = make_benchmark(EvaluationConfig(family, 6, 4, 3))
    best = np.asarray(prepare("oracle", bed).value)
    for name in ("mean-plan", "ce", "psrl", "bayes-adaptive", "bayes-imitation"):
        np.testing.assert_allclose(prepare(name, bed).value, best, rtol=ROUNDING)


@pytest.fixture(autouse=True)
def few_others(monkeypatch):
    """Cloning falls back on fewer tasks than it does elsewhere: they are solved."""
    monkeypatch.setattr("sdm.policies.untrained.behaviour_cloning.OTHER_TASKS", 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mdp", pytest.param("pomdp", marks=pytest.mark.slow)])
def test_exact_values_are_what_episodes_earn_on_average(kind):
    config = EvaluationConfig(
        EnergyFamily(q=0.7, models=2), 4, 5, 3000, support=2, kind=kind
    )
    bed = make_benchmark(config)
    valued = 0
    for name in (*names(config.family, kind), "always-work"):
        made = prepare(name, bed)
        if made.value is not None:
            policy = made.policy
            played = play(bed.tasks.world, policy, horizon=4, episodes=3000, seed=5)
            assert_is_the_mean(made.value, played, 0.95)
            valued += 1
    assert valued >= {"mdp": 10, "pomdp": 4}[kind]


@pytest.mark.slow
def test_sampling_from_a_sure_posterior_is_planning_for_the_truth():
    family = EnergyFamily(q=1.0)
    support = random_support(family.mdp(P), horizon=20, episodes=3000)
    found = believed(family, support, "mdp")
    # Some 20,000 charges: a standard error of 0.0035.
    np.testing.assert_allclose(mean_p(found), P, atol=0.02)
    policy = sample_and_plan(found, horizon=6)
    value = expected_return(policy, family.mdp(P))
    best = np.asarray(solve(family.mdp(P), horizon=6).value)
    # So narrow a posterior picks another plan only where both are worth as much.
    np.testing.assert_allclose(value, best, rtol=2e-3)
    # Next states that all tasks share, as lists.
    dense = family.mdp(P)
    states, actions = dense.reward.shape[-2:]
    every = np.broadcast_to(np.arange(states), (states, actions, states))
    listed = sparse_transition(every, np.asarray(dense.transition))
    assert listed.shared
    lists = eqx.tree_at(lambda x: x.transition, dense, listed)
    np.testing.assert_allclose(expected_return(policy, lists), value, rtol=ROUNDING)

    # Symbols that are the states: the same draws, and so the same episodes.
    shown = Posterior(found.params, family.pomdp(found.params["p"]), found.weight)
    hidden = sample_and_plan(shown, horizon=6)
    one = play(family.mdp(P), policy, horizon=6, episodes=30)
    other = play(family.pomdp(P), hidden, horizon=6, episodes=30)
    np.testing.assert_array_equal(one.action, other.action)


def test_samples_follow_the_posterior():
    support = random_support(EnergyFamily().mdp(P), horizon=10, episodes=2)
    found = believed(EnergyFamily(), support, "mdp")
    uniform = jax.random.uniform(jax.random.key(0), (3, 20_000))
    drawn = np.asarray(found.params["p"])[np.asarray(found.draw(uniform))]
    # Five standard errors of a mean of 20,000.
    np.testing.assert_allclose(drawn.mean(-1), mean_p(found), atol=5 * 0.2 / 140)


def test_cloning_repeats_what_was_shown_and_else_what_others_do():
    def shown(*episodes):
        seen, done = (
            jnp.array(x, jnp.int32)[None] for x in zip(*episodes, strict=True)
        )
        return Trajectory(seen, done, jnp.zeros(seen.shape))

    support = shown(([0, 1], [2, 0]), ([0, 2], [1, 0]))
    others = shown(([0, 1], [0, 1]), ([1, 1], [0, 2]), ([1, 0], [0, 2]))
    table = np.asarray(clone(support, others, symbols=3, actions=3).probabilities)[0]
    np.testing.assert_array_equal(table[0, 0], [0, 0.5, 0.5])  # own, two ways
    np.testing.assert_array_equal(table[0, 1], [1, 0, 0])  # others'
    np.testing.assert_allclose(table[0, 2], 1 / 3)  # nobody's
    np.testing.assert_array_equal(table[1, 1], [1, 0, 0])  # own, not others'
    np.testing.assert_array_equal(table[1, 0], [0, 0, 1])


def imitate_by_hand(family, support, horizon):
    """Bayesian imitation in loops: an action per task, stage and state."""
    p = np.asarray(family.prior().params["p"])
    plans = [backward_induction(family.mdp(jnp.array([x])), horizon=horizon) for x in p]
    chosen = []
    for seen, done in zip(support.observation, support.action, strict=True):
        weight = np.ones(len(p))
        for states, actions in zip(np.asarray(seen), np.asarray(done), strict=True):
            for t, (s, a) in enumerate(zip(states, actions, strict=True)):
                for i, plan in enumerate(plans):
                    optimal = int(plan.policy[0, t, s])
                    if (optimal == family.work) != (a == family.work):
                        weight[i] *= SLIP
                    stuck = s == (0 if a == family.work else family.max_energy)
                    if t + 1 < horizon and not stuck:
                        moved = states[t + 1] != s
                        weight[i] *= p[i] if moved else 1 - p[i]
        q = sum(
            w * np.asarray(plan.q[0]) for w, plan in zip(weight, plans, strict=True)
        )
        chosen.append(q.argmax(-1))
    return np.stack(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("episodes", [0, 1, 2])
def test_imitation_weighs_moves_and_choices(monkeypatch, episodes):
    monkeypatch.setattr(sys.modules["sdm.tasks.families.energy"], "POINTS", 12)
    family = EnergyFamily(max_energy=4, p_min=0.1)
    bed = make_benchmark(EvaluationConfig(family, 5, 12, 1, support=episodes))
    table = prepare("bayes-imitation", bed).policy
    wanted = imitate_by_hand(family, bed.support, 5)
    np.testing.assert_array_equal(table.probabilities.argmax(-1), wanted)
    if episodes == 2:  # and what it was shown decides what it does
        assert len(np.unique(wanted, axis=0)) > 3


@pytest.mark.slow
def test_imitation_reads_the_choices_of_an_oracle_only():
    """Of random episodes it is the plan for what the moves say."""
    shown = EvaluationConfig(EnergyFamily(), 8, 50, 1, demonstrations="random")
    bed = make_benchmark(shown)
    best = np.asarray(prepare("oracle", bed).value)
    made = np.asarray(prepare("bayes-imitation", bed).value)
    believing = table(bed, imitation(bed, read=True))
    estimating = np.asarray(prepare("ce", bed).value)
    # As good as certainty equivalence, to a tenth of what believing them would cost.
    lost = (best - np.asarray(believing.value)).mean()
    assert lost > 0.1 and abs((made - estimating).mean()) < lost / 10


@pytest.mark.slow
def test_imitation_of_another_horizon_is_refused():
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), 4, 2, 1))
    longer = dataclasses.replace(bed.config, horizon=6)
    with pytest.raises(ValueError, match=r"the 6 stages of the episodes, .* found 4"):
        prepare("bayes-imitation", dataclasses.replace(bed, config=longer))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pomdp", "apomdp"])
def test_hidden_tasks_rank_policies_by_what_they_know(kind):
    family = EnergyFamily(q=0.7, models=3)
    bed = make_benchmark(EvaluationConfig(family, 6, 40, 40, kind=kind))
    fitting = [*names(family, kind), "always-work"]
    gap = {name: evaluate_untrained(name, bed).gap.mean for name in fitting}
    # Standard errors are about 0.005; these orders are apart by several.
    assert gap["qmdp"] < gap["ce"] < gap["psrl"] < gap["always-work"] < gap["random"]
    assert gap["ce"] < gap["mean-plan"] and gap["qmdp"] < gap["observation-as-state"]
    assert abs(gap["qmdp"]) < 0.015  # three of them
    assert gap["observation-as-state"] < gap["bc"] < gap["random"]
    if kind == "apomdp":
        assert abs(gap["nominal"]) < 0.015 and abs(gap["mixture"]) < 0.02


def test_a_mixture_values_a_pair_as_its_model_values_the_state():
    model, _ = EnergyFamily(models=3).apomdp(jax.random.split(jax.random.key(0), 3), P)
    q = qmdp(mixture(model), horizon=5).plan.q  # [B, T, (K, S), A]
    for k in range(3):
        seen = states_observed(true_model(model, k))
        wanted = solve(seen, horizon=5).q
        found = q[:, :, 10 * k : 10 * (k + 1)]
        np.testing.assert_allclose(found, wanted, rtol=ROUNDING)


@pytest.mark.slow
def test_sampling_a_known_p_in_hidden_tasks_is_qmdp():
    family = EnergyFamily(p_min=0.6, p_max=0.6, q=0.7)
    hidden = family.pomdp(jnp.full(3, 0.6))
    support = random_support(hidden, horizon=4, episodes=2)
    sampled = sample_and_plan(believed(family, support, "pomdp"), horizon=8)
    one, other = (
        play(hidden, policy, horizon=8, episodes=200)
        for policy in (sampled, qmdp(hidden, horizon=8))
    )
    np.testing.assert_array_equal(one.action, other.action)


def test_what_no_candidate_explains_leaves_some():
    support = random_support(EnergyFamily().mdp(P), horizon=10, episodes=2)
    sure = EnergyFamily(p_min=1.0, p_max=1.0)
    for kind in ("mdp", "pomdp"):
        weight = believed(sure, support, kind).weight
        np.testing.assert_allclose(weight.sum(-1), 1, rtol=ROUNDING)


@pytest.mark.slow
def test_rewards_tell_candidates_apart_where_they_are_observed():
    """Garnet's rewards are each task's own: a few of them identify a candidate."""
    config = EvaluationConfig(families()["garnet"](), 4, 3, 1)
    bed = make_benchmark(config)
    blind = make_benchmark(dataclasses.replace(config, observes_reward=False))
    np.testing.assert_array_equal(bed.support.reward, blind.support.reward)
    shown = posterior(bed)
    for task in range(3):
        s, a = (
            np.asarray(x[task]) for x in (bed.support.observation, bed.support.action)
        )
        expected = np.asarray(shown.models.reward)[:, s, a]
        agree = (expected == np.asarray(bed.support.reward[task])).sum((-2, -1))
        moves = np.asarray(shown.models.transition)[:, s[:, :-1], a[:, :-1], s[:, 1:]]
        log = np.log(np.maximum(moves, 1e-12)).sum((-2, -1))
        log += (s.size - agree) * np.log(1e-12)
        wanted = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
        np.testing.assert_allclose(shown.weight[task], wanted, atol=1e-9)
    assert not np.allclose(posterior(blind).weight, shown.weight)


def test_a_policy_that_does_not_fit_is_refused_with_those_that_do():
    for family, kind in (("inventory", "mdp"), ("energy", "pomdp")):
        made = families()[family]()
        assert "mixture" not in names(made, kind)
        with pytest.raises(ValueError, match=r"does not fit .* it is for apomdp"):
            check_rule("mixture", made, kind)
    with pytest.raises(ValueError, match="has no such action: choose from always-stay"):
        check_rule("always-work", families()["darkroom"](), "mdp")


@pytest.mark.slow
def test_candidates_with_lists_of_next_states_are_weighed_and_averaged_like_others():
    family = EnergyFamily()
    params = family.prior().params
    models = family.model(params, "mdp")
    states, actions = models.reward.shape[-2:]
    every = np.broadcast_to(np.arange(states), (states, actions, states))
    support = random_support(family.mdp(P), horizon=6, episodes=2)
    chance = np.asarray(models.transition)
    own = np.broadcast_to(every, chance.shape).copy()
    plain = log_likelihood(models, support, rewards=False)
    wanted = Posterior(params, models, jax.nn.softmax(plain, axis=-1)).mean_model()
    for lists in (every, own):  # shared by all candidates, and not
        moves = sparse_transition(lists, chance)
        listed = eqx.tree_at(lambda x: x.transition, models, moves)
        found = log_likelihood(listed, support, rewards=False)
        np.testing.assert_allclose(found, plain, rtol=ROUNDING)
        weight = jax.nn.softmax(found, axis=-1)
        mean = Posterior(params, listed, weight).mean_model()
        np.testing.assert_allclose(
            dense(mean.transition), wanted.transition, atol=ROUNDING
        )
