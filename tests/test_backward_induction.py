"""The solver against enumeration, a linear programme, closed forms and invariances."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import best_value_of_all_plans, value_of_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_mdp, tasks_of
from scipy.optimize import linprog

from sdm.solvers_jax import MDP, EnergyFamily, backward_induction, solve

# The package exports a function of the same name as its module.
module = sys.modules["sdm.solvers_jax.backward_induction"]

# Float64: both sides do the same sums in another order, so only rounding differs.
assert_equal_up_to_rounding = partial(
    np.testing.assert_allclose, rtol=1e-12, atol=1e-12
)


def arrays(mdp):
    return np.asarray(mdp.transition), np.asarray(mdp.reward), mdp.discount


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_plan_beats_the_solution_and_its_actions_attain_it(seed, discount):
    mdp = random_mdp(seed, discount=discount)
    solution = solve(mdp, horizon=3)
    best = best_value_of_all_plans(*arrays(mdp), 3)
    attained = value_of_plan(np.asarray(solution.policy), *arrays(mdp))
    assert_equal_up_to_rounding(solution.state_value[0], best)
    assert_equal_up_to_rounding(attained, best)
    assert_equal_up_to_rounding(solution.value, np.asarray(mdp.initial) @ best)


def test_a_linear_programme_agrees():
    mdp, horizon = random_mdp(7, states=4, actions=3), 5
    p, r, discount = arrays(mdp)
    states, actions = r.shape
    # min Σ V_0 subject to V_t(s) - γ Σ P V_{t+1} ≥ r(s, a), with V_T = 0.
    rows, bounds = [], []
    for t in range(horizon):
        for s in range(states):
            for a in range(actions):
                row = np.zeros((horizon, states))
                row[t, s] -= 1
                if t + 1 < horizon:
                    row[t + 1] += discount * p[s, a]
                rows.append(row.ravel())
                bounds.append(-r[s, a])
    cost = np.ones(horizon * states)
    programme = linprog(cost, np.array(rows), np.array(bounds), bounds=(None, None))
    values = programme.x.reshape(horizon, states)
    # HiGHS satisfies constraints to 1e-7; values sum a few of them.
    solution = solve(mdp, horizon=horizon)
    np.testing.assert_allclose(solution.state_value[:-1], values, atol=1e-6)


def test_the_horizon_convention():
    solution = solve(random_mdp(0), horizon=4)
    assert solution.q.shape == (4, 3, 2)
    assert solution.policy.shape == (4, 3)
    assert solution.state_value.shape == (5, 3)
    np.testing.assert_array_equal(solution.state_value[-1], np.zeros(3))
    assert_equal_up_to_rounding(solution.state_value[:-1], solution.q.max(-1))


def test_constant_reward_gives_a_geometric_sum():
    one = jnp.ones((1, 1, 1))
    mdp = MDP(one, jnp.full((1, 1), 2.0), jnp.ones(1), 0.5)
    assert_equal_up_to_rounding(solve(mdp, horizon=5).value, 2 * (1 - 0.5**5) / 0.5)


def test_certain_moves_have_a_closed_form():
    """With p = 1, no cost and T ≤ s, working down from s earns (s + s-1 + …)/E."""
    family = EnergyFamily(charge_cost=0.0, discount=1.0)
    solution = solve(family.mdp(jnp.ones(())), horizon=3)
    assert_equal_up_to_rounding(solution.state_value[0, 7], (7 + 6 + 5) / 9)


def test_ties_go_to_the_lowest_action():
    solution = solve(EnergyFamily().sample(jax.random.key(0), 50), horizon=10)
    assert set(np.unique(solution.policy)) == {0, 2}  # 1 is the same charge action as 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), shift=st.floats(-10, 10))
def test_shifting_rewards_shifts_values_but_not_actions(seed, shift):
    mdp = random_mdp(seed, discount=1.0)
    moved = MDP(mdp.transition, mdp.reward + shift, mdp.initial, 1.0)
    a, b = (solve(m, horizon=4) for m in (mdp, moved))
    # Adding up to 10 and taking it away costs a few units in the last place of 40.
    np.testing.assert_allclose(b.value, a.value + 4 * shift, atol=1e-12)
    np.testing.assert_array_equal(a.policy, b.policy)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), order=st.permutations(range(3)))
def test_renaming_states_renames_values(seed, order):
    mdp, order = random_mdp(seed), np.array(order)
    renamed = MDP(
        mdp.transition[order][:, :, order], mdp.reward[order], mdp.initial[order], 0.9
    )
    a, b = (solve(m, horizon=4) for m in (mdp, renamed))
    assert_equal_up_to_rounding(b.state_value, a.state_value[:, order])
    assert_equal_up_to_rounding(b.value, a.value)


def test_scaling_rewards_scales_values():
    mdp = random_mdp(3)
    scaled = MDP(mdp.transition, 5.0 * mdp.reward, mdp.initial, 0.9)
    assert_equal_up_to_rounding(
        solve(scaled, horizon=6).value, 5 * solve(mdp, horizon=6).value
    )


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "fit"), [(1, 8), (7, 1), (9, 3), (8, 8), (23, 8)])
def test_a_batch_is_the_stack_of_its_tasks_however_it_is_cut(tasks, fit, monkeypatch):
    # Below CPU_LANES tasks to a chunk, their axis comes first, otherwise last.
    mdps = random_mdp(0, tasks)
    monkeypatch.setattr(module, "CPU_CHUNK_BYTES", fit * mdps.transition[0].nbytes)
    together = backward_induction(mdps, horizon=6)
    for i, one in enumerate(tasks_of(mdps)):
        best = best_value_of_all_plans(*arrays(one), 3)
        assert_equal_up_to_rounding(together.state_value[i, 3], best)
        for t in range(6):
            q, value = together.q[i, t], together.state_value[i, t]
            after = one.transition @ together.state_value[i, t + 1]
            assert_equal_up_to_rounding(q, one.reward + one.discount * after)
            assert_equal_up_to_rounding(value, q.max(-1))
            np.testing.assert_array_equal(together.policy[i, t], q.argmax(-1))


@pytest.mark.parametrize("fit", [1, 8])
def test_ties_go_to_the_lowest_action_however_tasks_are_cut(fit, monkeypatch):
    mdps = EnergyFamily().sample(jax.random.key(0), 16)
    monkeypatch.setattr(module, "CPU_CHUNK_BYTES", fit * mdps.transition[0].nbytes)
    policy = backward_induction(mdps, horizon=9).policy
    assert set(np.unique(policy)) == {0, 2}


def test_chunks_leave_no_rest_where_they_need_not():
    assert module._chunk(64, 10) == 8 and module._chunk(5, 8) == 5
    assert module._chunk(11, 8) == 8  # a prime number: no chunk of 5 to 8 divides it


def test_several_batch_axes_are_kept():
    mdps = random_mdp(0, 2, 4)
    solution = solve(mdps, horizon=3)
    assert solution.q.shape == (2, 4, 3, 3, 2)
    flat = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]) if np.ndim(x) else x, mdps)
    assert_equal_up_to_rounding(
        solution.value.ravel(), solve(flat, horizon=3).value.ravel()
    )


def test_action_looks_up_states_of_every_task():
    mdps = random_mdp(1, 4)
    solution = solve(mdps, horizon=3)
    states = jnp.array([[0, 2], [1, 1], [2, 0], [0, 0]])
    chosen = solution.action(1, states)
    for b in range(4):
        for n in range(2):
            assert chosen[b, n] == solution.policy[b, 1, states[b, n]]


def test_another_discount_does_not_compile_again():
    solve(random_mdp(0, discount=0.9), horizon=11)
    before = module._solve_chunks._cache_size()
    solve(random_mdp(0, discount=0.8), horizon=11)
    assert module._solve_chunks._cache_size() == before
