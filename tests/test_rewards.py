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

from sdm.data.agreement import oracle_actions
from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.request import OracleConfig, bytes_per_task
from sdm.data.solved_tasks import solve_sampled
from sdm.policies.registry import prepare
from sdm.solvers_jax import (
    APOMDP,
    POMDP,
    EnergyFamily,
    POMDPSolution,
    belief_tree_value,
)
from sdm.tasks.belief import belief_filter, true_model
from sdm.tasks.models import check_model, states_observed
from sdm.tasks.policy import uniform_random
from sdm.tasks.rewards import agrees, observe_rewards, reward_levels
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_pairs_that_nothing_leads_to_are_left_out():
    found = observe_rewards(EnergyFamily().pomdp(P))
    # Charging pays one level and ends anywhere; work pays its own level and ends there
    # or one below: 10 + 19 of 110 pairs.
    assert found.levels.shape == (3, 11) and len(found.state) == 29
    config = OracleConfig(EnergyFamily(), 10, 5, 1, kind="pomdp")
    seen = dataclasses.replace(config, observes_reward=True)
    assert bytes_per_task(seen) > 2 * bytes_per_task(config)


@pytest.mark.slow
@pytest.mark.parametrize("model", POMDPS.values(), ids=POMDPS)
def test_the_value_is_that_of_histories_with_rewards(model):
    for task, larger in zip(
        tasks_of(model), tasks_of(observe_rewards(model).model), strict=True
    ):
        blind, wanted = (by_histories(task, 3, rewards=x) for x in (False, True))
        found = belief_tree_value(larger, horizon=3)
        np.testing.assert_allclose(found, wanted, rtol=ROUNDING)
        assert wanted >= blind - ROUNDING


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


# One shape of tasks for all: the solvers compile once for each.
TASKS, EPISODES, HORIZON = 16, 1000, 4


def configured(family=ENERGY, **options):
    options = {"kind": "pomdp", "observes_reward": True, **options}
    return EvaluationConfig(family, HORIZON, TASKS, EPISODES, **options)


@pytest.fixture(scope="module")
def bed():
    """Tasks with rewards in sight."""
    return make_benchmark(configured())


@pytest.fixture(scope="module")
def values(bed):
    """Exact values of these tasks with rewards out of sight and in sight."""
    return tree_values(bed.tasks.model, HORIZON)


def play(bed, policy):
    keys = task_keys(jax.random.key(7), TASKS)
    return rollout(keys, bed.tasks.world, policy, horizon=HORIZON, episodes=EPISODES)


def returns_of(bed, policy):
    return np.asarray(discounted_return(play(bed, policy).reward, 0.95))


@pytest.mark.slow
def test_the_oracle_is_certified_and_earns_what_its_bounds_say(bed, values):
    found, exact = bed.solution, values[1]
    assert (found.lower <= exact + ROUNDING).all()
    assert (exact <= found.upper + ROUNDING).all()
    returns = returns_of(bed, bed.oracle)
    error = returns.std(1) / np.sqrt(EPISODES)
    # Four standard errors a task: by chance one in a thousand such tests fails.
    assert (returns.mean(1) >= np.asarray(found.lower) - 4 * error).all()
    assert (returns.mean(1) <= np.asarray(found.upper) + 4 * error).all()


@pytest.mark.slow
def test_the_oracles_own_decisions_are_its_own(bed):
    played = play(bed, bed.oracle)
    np.testing.assert_array_equal(oracle_actions(bed, played), played.action)


@pytest.mark.slow
def test_plans_do_not_depend_on_the_reward_of_a_pair(bed):
    pairs = observe_rewards(bed.tasks.model)
    vectors = np.asarray(bed.solution.alpha_vectors)
    stands_for = pairs.start[pairs.state]
    np.testing.assert_array_equal(vectors, vectors[..., stands_for])


@pytest.mark.slow
def test_reading_rewards_beats_the_blind_optimum_and_not_the_seeing_one(bed, values):
    returns = returns_of(bed, prepare("qmdp", bed).policy)
    error = np.sqrt((returns.var(1) / EPISODES).sum()) / TASKS
    blind, seeing = values.mean(1)
    assert blind + 4 * error < returns.mean() < seeing + 4 * error


class Recorded:
    """A method that keeps the model it is given, and solves nothing."""

    name, handles = "recorded", (POMDP, APOMDP)

    def solve(self, model, *, horizon):  # noqa: D102
        self.model = model
        return object.__new__(POMDPSolution)


@pytest.mark.slow
@pytest.mark.parametrize("seen", [None, False, True])
@pytest.mark.parametrize("kind", ["pomdp", "apomdp"])
def test_what_is_solved_and_filtered_shows_rewards_where_agents_see_them(
    monkeypatch, kind, seen
):
    method = Recorded()
    monkeypatch.setattr("sdm.data.solved_tasks.method_of", lambda *_: method)
    model, believe = {
        "pomdp": (POMDPS["first symbol"], 0),
        "apomdp": (APOMDPS[0.4], "mixture"),
    }[kind]
    family, options = EnergyFamily(models=2), {"kind": kind, "observes_reward": seen}
    config = OracleConfig(family, 2, 1, 1, believe=believe, **options)
    found, policy = solve_sampled(model, config)
    wanted = belief_filter(model, believe=believe, rewards=bool(seen))
    assert eqx.tree_equal(policy.filter, wanted)
    if not seen:  # the default of these tasks: nothing has changed
        assert method.model is model and policy.plan is found
        return
    assert eqx.tree_equal(method.model, observe_rewards(model).model)
    assert policy.plan.plan is found


@pytest.mark.slow
def test_sampling_a_known_p_with_rewards_is_qmdp_with_rewards():
    family = dataclasses.replace(ENERGY, p_min=0.6, p_max=0.6)
    bed = make_benchmark(configured(family))
    one, other = (play(bed, prepare(name, bed).policy) for name in ("psrl", "qmdp"))
    np.testing.assert_array_equal(one.action, other.action)


@pytest.mark.slow
def test_ambiguous_tasks_are_solved_with_rewards_too():
    family = dataclasses.replace(ENERGY, models=2)
    config = configured(family, kind="apomdp", believe="mixture")
    bed = make_benchmark(config)
    exact = tree_values(bed.tasks.model, HORIZON)[1]
    assert (np.abs(bed.solution.value - exact) <= bed.solution.error).all()
    nominal = prepare("nominal", bed).policy
    best = tree_values(bed.tasks.world, HORIZON)[1]
    returns = returns_of(bed, nominal)
    error = returns.std(1) / np.sqrt(EPISODES)
    # Four standard errors, and the gap that it is solved to.
    assert (np.abs(returns.mean(1) - best) <= 4 * error + 0.01 * best).all()


def test_rewards_that_differ_by_rounding_are_one_level_however_large():
    levels, _ = reward_levels(np.array([[[1e9, 1e9 * (1 + 1e-13)], [-1e9, 0.0]]]))
    np.testing.assert_array_equal(levels, [[-1e9, 0, 1e9]])


@pytest.mark.slow
def test_states_that_no_decision_leads_to_can_be_started_in():
    """Of two tasks, each reaches other pairs."""
    moves = np.zeros((2, 2, 1, 2))
    moves[0, :, 0, 1] = moves[1, :, 0, 0] = 1
    model = POMDP(
        transition=jnp.asarray(moves),
        observation=jnp.full((2, 1, 2, 1), 1.0),
        reward=jnp.asarray([[[0.0], [1.0]], [[0.0], [1.0]]]),
        initial=jnp.full((2, 2), 0.5),
        discount=0.9,
    )
    found = observe_rewards(model)
    check_model(found.model)
    pairs = [*zip(found.state.tolist(), found.level.tolist(), strict=True)]
    assert pairs == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [pairs[i] for i in found.start] == [(0, 0), (1, 0)]
    alone, _ = tasks_of(model)
    one = observe_rewards(jax.tree.map(lambda x: x[None] if np.ndim(x) else x, alone))
    check_model(one.model)
    assert [*zip(one.state.tolist(), one.level.tolist(), strict=True)] == [
        (0, 0),
        (1, 0),
        (1, 1),
    ]


def test_rewards_agree_up_to_rounding_of_either_sign():
    expected = jnp.array([1e9, 1e9, 1.0, 1.0, -1.0])
    off = jnp.array([1e-3, -1e-3, 1e-6, -1e-6, -1e-6])
    same = agrees(expected + off, expected)
    np.testing.assert_array_equal(same, [True, True, False, False, False])
    with jax.enable_x64(False):
        third = jnp.float32(1) / 3
        assert agrees(third * 3 + jnp.float32(1e-7), jnp.ones((), jnp.float32))
