"""Rewards in sight: the larger task, the filter, and the oracle that reads them."""

import dataclasses
import itertools

import equinox as eqx
import expectimax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_pomdp, tasks_of
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark, oracle_actions
from sdm.data.request import OracleConfig, bytes_per_task
from sdm.data.solved_tasks import sample_tasks, solve_sampled
from sdm.policies.registry import prepare
from sdm.solvers_jax import APOMDP, EnergyFamily, PointBased, belief_tree_value
from sdm.tasks.belief import BeliefPolicy, belief_filter, true_model
from sdm.tasks.models import check_model, states_observed
from sdm.tasks.policy import uniform_random
from sdm.tasks.rewards import observe_rewards, reward_levels
from sdm.tasks.rollout import discounted_return, rollout, task_keys

# Symbols say little here, and what work pays says everything.
ENERGY = EnergyFamily(max_energy=2, q=0.5)
P = jnp.array([0.3, 0.5, 0.8])


def rounded(model):
    """The same tasks with rewards that several decisions have in common."""
    return eqx.tree_at(lambda m: m.reward, model, jnp.round(model.reward))


POMDPS = {
    "first symbol": rounded(random_pomdp(0, batch=(2,))),
    "no first symbol": rounded(random_pomdp(1, batch=(2,), first=False)),
}
APOMDPS = {
    alpha: rounded(random_apomdp(3, alpha, batch=(1,))) for alpha in (0.0, 0.4, 1.0)
}


def by_histories(task, horizon, *, rewards):
    """Exact value of one task, from sums over histories."""
    parts = [task.transition, task.observation, task.initial_observation]
    first = parts[2] is not None
    if not isinstance(task, APOMDP):
        parts = [None if x is None else x[None] for x in parts]
    models = [tuple(map(np.asarray, x)) for x in zip(*parts[:2], strict=True)]
    firsts = [np.asarray(x) for x in parts[2]] if first else None
    reward, initial = np.asarray(task.reward), np.asarray(task.initial)
    alpha = float(getattr(task, "alpha", 0))
    rest = (reward, initial, alpha, task.discount, horizon)
    return expectimax.initial_value(models, firsts, *rest, rewards=rewards)


@pytest.mark.parametrize("model", POMDPS.values(), ids=POMDPS)
def test_pairs_and_symbols_carry_the_reward_just_paid(model):
    found = observe_rewards(model)
    check_model(found.model)
    count = found.levels.shape[1]
    pairs = list(zip(found.state.tolist(), found.level.tolist(), strict=True))
    assert pairs == sorted(pairs) and [pairs[i] for i in found.start] == [
        (s, 0) for s in range(3)
    ]
    larger = found.model
    for b, (i, (s, _)), a in itertools.product(range(2), enumerate(pairs), range(2)):
        paid = float(model.reward[b, s, a])
        assert larger.reward[b, i, a] == paid
        for j, (n, level) in enumerate(pairs):
            leads = float(model.transition[b, s, a, n])
            wanted = leads * (found.levels[b, level] == paid)
            wanted *= level <= np.argmax(found.levels[b] == paid)  # no padding
            assert larger.transition[b, i, a, j] == wanted
            for o, shown in itertools.product(range(2), range(count)):
                wanted = float(model.observation[b, a, n, o]) * (shown == level)
                assert larger.observation[b, a, j, o * count + shown] == wanted
    np.testing.assert_array_equal(larger.initial[:, found.start], model.initial)
    if model.initial_observation is not None:
        first = np.asarray(larger.initial_observation)[:, found.start]
        np.testing.assert_array_equal(first[..., ::count], model.initial_observation)


def test_levels_are_the_distinct_rewards_of_each_task():
    reward = np.array([[[0.3, 0.1 + 0.2], [-1.0, 5.0]], [[2.0, 2.0], [2.0, 7.0]]])
    levels, place = reward_levels(reward)  # 0.1 + 0.2 is not 0.3, but for rounding
    np.testing.assert_array_equal(levels, [[-1, 0.3, 5], [2, 7, 7]])
    np.testing.assert_array_equal(place, [[[1, 1], [0, 2]], [[0, 0], [0, 1]]])


def test_pairs_that_nothing_leads_to_are_left_out():
    found = observe_rewards(EnergyFamily().pomdp(P))
    # Charging pays one level and ends anywhere; work pays its own level and ends there
    # or one below: 10 + 19 of 110 pairs.
    assert found.levels.shape == (3, 11) and len(found.state) == 29
    config = OracleConfig(EnergyFamily(), 10, 5, 1, kind="pomdp")
    seen = dataclasses.replace(config, observes_reward=True)
    assert bytes_per_task(seen) > 2 * bytes_per_task(config)


@pytest.mark.parametrize("model", POMDPS.values(), ids=POMDPS)
def test_the_value_is_that_of_histories_with_rewards(model):
    for task, larger in zip(
        tasks_of(model), tasks_of(observe_rewards(model).model), strict=True
    ):
        blind, wanted = (by_histories(task, 3, rewards=x) for x in (False, True))
        found = belief_tree_value(larger, horizon=3)
        np.testing.assert_allclose(found, wanted, rtol=ROUNDING)
        assert wanted >= blind - ROUNDING


@pytest.mark.parametrize("model", APOMDPS.values(), ids=map(str, APOMDPS))
def test_so_is_that_of_ambiguous_tasks(model):
    (task,), (larger,) = tasks_of(model), tasks_of(observe_rewards(model).model)
    wanted = by_histories(task, 3, rewards=True)
    found = belief_tree_value(larger, horizon=3)
    np.testing.assert_allclose(found, wanted, rtol=ROUNDING)


def tree_values(model, horizon):
    larger = observe_rewards(model).model
    return np.array(
        [
            [belief_tree_value(task, horizon=horizon) for task in tasks_of(x)]
            for x in (model, larger)
        ]
    )


def test_seeing_what_work_pays_is_worth_something():
    blind, seeing = tree_values(ENERGY.pomdp(P), 4)
    assert (seeing > blind + 0.01).all()


def test_rewards_that_say_nothing_new_change_nothing():
    model = random_pomdp(2, batch=(2,))
    by_action = jnp.broadcast_to(model.reward[:, :1], model.reward.shape)
    known = eqx.tree_at(lambda m: m.reward, model, by_action)
    for tasks in (known, EnergyFamily(max_energy=2, q=1.0).pomdp(P)):
        blind, seeing = tree_values(tasks, 3)
        np.testing.assert_allclose(seeing, blind, rtol=ROUNDING)


def by_paths(models, reward, initial, seen, done, paid):
    """Posterior of model and last state, from the probability of every path."""
    states = len(initial)
    joint = np.zeros((len(models), states))
    for k, (p, z, first) in enumerate(models):
        for path in itertools.product(range(states), repeat=len(seen)):
            chance = initial[path[0]] * first[path[0], seen[0]]
            for t, a in enumerate(done):
                chance *= reward[path[t], a] == paid[t]
                chance *= p[path[t], a, path[t + 1]] * z[a, path[t + 1], seen[t + 1]]
            joint[k, path[-1]] += chance
    return joint / joint.sum()


@pytest.mark.parametrize("believe", [0, "mixture"])
def test_beliefs_are_sums_over_the_paths_that_rewards_leave(believe):
    model = rounded(random_apomdp(4, 0.5, batch=(1,)))
    world, keys = true_model(model), task_keys(jax.random.key(0), 1)
    random = uniform_random(states_observed(world), 4)
    played = rollout(keys, world, random, horizon=4, episodes=6)
    found = belief_filter(model, believe=believe, rewards=True)
    state = found.see_first(found.start(6), played.observation[..., 0])
    for t in range(3):
        parts = (played.action, played.observation[..., 1:], played.reward)
        state = found.update(state, *(x[..., t] for x in parts))
    assert (state.impossible == 0).all()
    fields = (model.transition, model.observation, model.initial_observation)
    models = list(zip(*(np.asarray(x[0]) for x in fields), strict=True))
    models = models if believe == "mixture" else models[:1]
    known = [np.asarray(x[0]) for x in (model.reward, model.initial)]
    for n in range(6):
        seen, done, paid = (
            np.asarray(x[0, n])
            for x in (played.observation, played.action, played.reward)
        )
        wanted = by_paths(models, *known, seen, done[:-1], paid)
        np.testing.assert_allclose(state.joint[0, n], wanted, atol=ROUNDING)


def test_an_unexplained_reward_is_ignored_and_counted():
    found = belief_filter(ENERGY.pomdp(P[:1]), rewards=True)
    state = found.start(2)
    work, symbol = jnp.full((1, 2), 2), jnp.zeros((1, 2), jnp.int32)
    paid = jnp.array([[0.5, 0.7]])  # what state 1 pays, and no state
    after = found.update(state, work, symbol, paid)
    np.testing.assert_array_equal(after.impossible, [[0, 1]])
    blind = belief_filter(ENERGY.pomdp(P[:1])).update(state, work, symbol)
    np.testing.assert_allclose(after.belief[0, 1], blind.belief[0, 1], rtol=ROUNDING)
    assert after.belief[0, 0, 2] == 0 and blind.belief[0, 0, 2] > 0
    with pytest.raises(ValueError, match="needs the rewards"):
        found.update(state, work, symbol)


def configured(seen, **options):
    options = {"tasks": 3, "trajectories": 400, "kind": "pomdp", **options}
    return EvaluationConfig(ENERGY, 4, observes_reward=seen, **options)


@pytest.fixture(scope="module")
def beds():
    """The same tasks with rewards out of sight and in sight."""
    return {seen: make_benchmark(configured(seen)) for seen in (False, True)}


def test_the_oracle_is_certified_and_earns_what_its_bounds_say(beds):
    for seen, bed in beds.items():
        exact = tree_values(bed.tasks.model, 4)[int(seen)]
        found = bed.solution
        assert (found.lower <= exact + ROUNDING).all()
        assert (exact <= found.upper + ROUNDING).all()
        played = play(bed, bed.oracle)
        returns = np.asarray(discounted_return(played.reward, 0.95))
        error = returns.std(1) / 20
        # Four standard errors a task.
        assert (returns.mean(1) >= np.asarray(found.lower) - 4 * error).all()
        assert (returns.mean(1) <= np.asarray(found.upper) + 4 * error).all()


def play(bed, policy):
    config = bed.config
    keys = task_keys(jax.random.key(7), config.tasks)
    horizon, episodes = config.horizon, config.trajectories
    return rollout(keys, bed.tasks.world, policy, horizon=horizon, episodes=episodes)


def test_the_oracles_own_decisions_are_its_own(beds):
    for bed in beds.values():
        played = play(bed, bed.oracle)
        np.testing.assert_array_equal(oracle_actions(bed, played), played.action)


def test_plans_do_not_depend_on_the_reward_of_a_pair(beds):
    found = beds[True].solution
    pairs = observe_rewards(beds[True].tasks.model)
    vectors = np.asarray(found.alpha_vectors)
    stands_for = pairs.start[pairs.state]
    np.testing.assert_array_equal(vectors, vectors[..., stands_for])


def test_who_reads_rewards_beats_the_blind_oracle_and_not_the_seeing_one():
    tasks = {"tasks": 60, "trajectories": 100}
    blind, seeing = (make_benchmark(configured(x, **tasks)) for x in (False, True))
    reader = prepare("qmdp", seeing).policy
    returns = [
        np.asarray(discounted_return(play(bed, policy).reward, 0.95)).mean(1)
        for bed, policy in (
            (blind, blind.oracle),
            (seeing, reader),
            (seeing, seeing.oracle),
        )
    ]
    (low, middle, high) = returns
    for better, worse, least in ((middle, low, 4), (high, middle, -4)):
        gain = better - worse  # with common random numbers, task by task
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        assert gain.mean() > least * error


@pytest.mark.parametrize("kind", ["pomdp", "apomdp"])
def test_unseen_rewards_leave_everything_as_it_was(kind):
    family = dataclasses.replace(ENERGY, models=2)
    config = OracleConfig(family, 3, 2, 5, kind=kind, points=8)
    assert not config.rewards_seen
    tasks = sample_tasks(0, config=config, size=2)
    found, policy = solve_sampled(tasks.model, config)
    if kind == "pomdp":
        wanted = PointBased(points=8).solve(tasks.model, horizon=3)
        for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_array_equal(a, b)
    plain = BeliefPolicy(found, belief_filter(tasks.model))
    keys = task_keys(jax.random.key(0), 2)
    one, other = (
        rollout(keys, tasks.world, x, horizon=3, episodes=5) for x in (policy, plain)
    )
    np.testing.assert_array_equal(one.action, other.action)


def test_ambiguous_tasks_are_solved_with_rewards_too():
    family = dataclasses.replace(ENERGY, models=2)
    config = OracleConfig(
        family,
        3,
        2,
        5,
        kind="apomdp",
        points=32,
        believe="mixture",
        observes_reward=True,
    )
    tasks = sample_tasks(0, config=config, size=2)
    found, _ = solve_sampled(tasks.model, config)
    exact = tree_values(tasks.model, 3)[1]
    assert (np.abs(found.value - exact) <= found.error).all()
    bed = make_benchmark(configured(True, kind="apomdp", tasks=2, trajectories=5))
    for name in ("nominal", "mixture", "qmdp", "ce", "psrl"):
        made = prepare(name, bed)
        play(bed, made.policy)


def test_sampling_a_known_p_with_rewards_is_qmdp_with_rewards():
    family = EnergyFamily(max_energy=2, q=0.5, p_min=0.6, p_max=0.6)
    for seen in (False, True):
        config = dataclasses.replace(configured(seen, trajectories=50), family=family)
        bed = make_benchmark(config)
        one, other = (play(bed, prepare(name, bed).policy) for name in ("psrl", "qmdp"))
        np.testing.assert_array_equal(one.action, other.action)
