"""POMDPs with intervals: linear programmes, published values, plans, games, hulls."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import crying_baby, random_pomdp, tasks_of, tiger
from robust_expectimax import RobustExpectimax
from scipy.optimize import linprog
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import (
    IntervalPoints,
    IntervalPOMDP,
    Plan,
    belief_tree_value,
    load_npz,
    rollout,
    save_npz,
    solve,
    worst_case_value,
)
from sdm.solvers_jax.interval_sets import interval_sets
from sdm.solvers_jax.matrix_game import matrix_game
from sdm.solvers_jax.plot import save_picture
from sdm.solvers_jax.upper_hull import hull_value
from sdm.tasks.rollout import discounted_return, task_keys

# The reference stops at 1e-7 at each of three stages, and HiGHS at about 1e-7.
REFERENCE = 1e-5


def interval_model(seed, half_width=0.15, *, joint=True, **options):
    return IntervalPOMDP.around(random_pomdp(seed, **options), half_width, joint=joint)


def laws_in_the_sets(model, seed):
    """A joint law p(s', o | s, a) [S, A, O, S'] of one task, inside of its sets."""
    random = np.random.default_rng(seed)
    sets = interval_sets(model)
    *_, symbols = model.observation_lower.shape
    states, actions = model.reward.shape
    gain = jnp.asarray(random.normal(size=(states, actions, symbols, states)))
    corners = jnp.eye(states)
    chance, _ = sets.reply(corners, gain)
    share = random.uniform()
    return np.asarray(share * chance + (1 - share) * sets.middle(corners))


def plan_value(model, plan, law):
    """The value of a plan under one law, by the definition."""
    stages, nodes = plan.choice.shape
    value = np.zeros((nodes, model.reward.shape[0]))
    for t in reversed(range(stages)):
        new = np.zeros_like(value)
        for n in range(nodes):
            a = int(plan.choice[t, n])
            new[n] = model.reward[:, a]
            for k, weight in enumerate(np.asarray(plan.weight[t, n])):
                for o, there in enumerate(np.asarray(plan.after[t, n, k])):
                    new[n] += 0.9 * weight * law[:, a, o] @ value[there]
        value = new
    if model.initial_observation is None:
        return float(model.initial @ value[0])
    first = np.asarray(model.initial)[:, None] * np.asarray(model.initial_observation)
    return sum(first[:, o] @ value[o] for o in range(first.shape[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "states", "horizon", "joint"),
    [
        pytest.param(0, 2, 3, True, marks=pytest.mark.slow),
        (0, 2, 3, False),
        (1, 3, 2, True),
    ],
)
def test_bounds_contain_the_value_of_linear_programmes(seed, states, horizon, joint):
    model = interval_model(seed, joint=joint, states=states, first=False)
    wanted, _ = RobustExpectimax(model, horizon).value(np.asarray(model.initial))
    found = solve(model, horizon=horizon, gap=0.001, points=16)
    assert float(found.lower) <= wanted + REFERENCE
    assert float(found.upper) >= wanted - REFERENCE
    assert bool(found.converged)
    assert float(found.upper - found.lower) <= 0.001 * abs(wanted) + REFERENCE


@pytest.mark.parametrize("joint", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_plan_earns_the_lower_bound_and_no_law_is_worse(joint):
    model = interval_model(2, joint=joint)
    found = solve(model, horizon=3, points=16)
    worst = float(worst_case_value(model, found.plan))
    assert worst == pytest.approx(float(found.lower), abs=ROUNDING)
    best = float(worst_case_value(model, found.plan, attitude="optimistic"))
    for seed in range(6):
        earned = plan_value(model, found.plan, laws_in_the_sets(model, seed))
        assert worst - ROUNDING <= earned <= best + ROUNDING


def test_the_worst_law_of_a_plan_is_attained():
    """At horizon 2 nature moves once, so that its reply to the plan is one law."""
    model = interval_model(3, first=False)
    plan = solve(model, horizon=2, points=16).plan
    last = np.asarray(model.reward).T[np.asarray(plan.choice[1])]
    weight, after = np.asarray(plan.weight[0, 0]), np.asarray(plan.after[0, 0])
    gain = np.einsum("k,kos->os", weight, last[after])[None, None]
    sets = interval_sets(model)
    every = jnp.asarray(np.broadcast_to(gain, (3, 2, 2, 3)))
    law, _ = sets.reply(jnp.eye(3), every)
    worst = float(worst_case_value(model, plan))
    assert plan_value(model, plan, np.asarray(law)) == pytest.approx(worst)


@pytest.mark.slow
def test_intervals_without_width_are_a_pomdp():
    pomdp = random_pomdp(4, batch=(2,))
    found = solve(IntervalPOMDP.around(pomdp, 0.0), horizon=3, points=16)
    for i, task in enumerate(tasks_of(pomdp)):
        wanted = float(belief_tree_value(task, horizon=3))
        assert float(found.lower[i]) <= wanted <= float(found.upper[i])
        assert float(found.upper[i] - found.lower[i]) <= 0.01 * abs(wanted)


def test_full_intervals_lead_to_the_worst_state():
    pomdp = random_pomdp(5, first=False)
    found = solve(IntervalPOMDP.around(pomdp, 1.0), horizon=2, points=16)
    # Nature leads to any state and shows any symbol, so that symbols say nothing: the
    # agent's last action is a mixture against the worst state, a matrix game.
    reward = np.asarray(pomdp.reward)
    game = linprog(
        [0, 0, -1],
        A_ub=np.c_[-reward, np.ones(3)],
        b_ub=np.zeros(3),
        A_eq=[[1, 1, 0]],
        b_eq=[1],
        bounds=[(0, 1), (0, 1), (None, None)],
    )
    wanted = (pomdp.initial @ reward).max() - 0.9 * game.fun
    assert float(found.lower) == pytest.approx(float(wanted), abs=REFERENCE)
    assert float(found.upper) == pytest.approx(float(wanted), abs=REFERENCE)


@pytest.mark.slow
def test_wider_sets_are_worth_less():
    values = [
        solve(interval_model(6, w), horizon=3, points=16) for w in (0.0, 0.05, 0.2)
    ]
    lower, upper = ([float(getattr(v, n)) for v in values] for n in ("lower", "upper"))
    assert upper[0] > lower[0] > upper[1] > upper[2] and lower[1] > upper[2]
    apart = solve(interval_model(6, 0.2, joint=False), horizon=3, points=16)
    assert float(apart.upper) > lower[2]  # separate rows are a subset


@pytest.mark.slow
def test_robust_tiger_has_its_published_value():
    """18.78 and -15.55 at half-widths of 0.001 and 0.1, as for RPOMDPModels.jl."""
    for width, published in ((0.001, 18.78), (0.1, -15.55)):
        model = IntervalPOMDP.around(tiger(), width)
        found = solve(model, horizon=250, gap=0.005)
        assert bool(found.converged)
        # The published values come from a point-based method without upper bounds;
        # ours have a gap of at most 0.08.
        assert abs(float(found.lower) - published) < 0.13


@pytest.mark.slow
def test_robust_crying_baby_has_its_published_value():
    """-18.49 with the three symbols of RPOMDPModels.jl and a half-width of 0.001."""
    quiet_crying_yelling = jnp.asarray([[0.3, 0.6, 0.1], [0.8, 0.1, 0.1]])
    seen = jnp.stack([quiet_crying_yelling] * 2)
    pomdp = dataclasses.replace(crying_baby(), observation=seen)
    model = IntervalPOMDP.around(pomdp, 0.001)
    found = solve(model, horizon=100, points=64, gap=0.005)
    assert bool(found.converged)
    # Rounded to 0.01, and 0.9^100 of a value of 50 after the last stage.
    assert float(found.lower) - 0.02 <= -18.49 <= float(found.upper) + 0.02


@pytest.mark.slow
def test_bounds_do_not_cross_where_pivots_are_tiny():
    """Beliefs almost at a corner once lost digits, and the upper bound with them."""
    model = IntervalPOMDP.around(crying_baby(), 0.001)
    found = solve(model, horizon=150, gap=0.005)
    assert float(found.lower) <= float(found.upper)


@pytest.mark.slow
def test_a_plan_has_no_figure(tmp_path):
    found = solve(interval_model(0), horizon=2, points=16)
    with pytest.raises(ValueError, match="IntervalSolution has no figure"):
        save_picture(found, tmp_path / "plan.png")


@pytest.mark.slow
def test_units_of_reward_and_batches_do_not_matter():
    model = interval_model(7, batch=(2,))
    found = solve(model, horizon=3, points=16)
    large = dataclasses.replace(model, reward=1e6 * model.reward)
    scaled = solve(large, horizon=3, points=16)
    wide = 1e6 * found.lower
    assert (scaled.lower <= 1e6 * found.upper).all() and (scaled.upper >= wide).all()
    worst = worst_case_value(model, found.plan)
    for i, task in enumerate(tasks_of(model)):
        alone = solve(task, horizon=3, points=16)
        assert float(found.upper[i]) == pytest.approx(float(alone.upper))
        assert float(found.lower[i]) == pytest.approx(float(alone.lower))
        assert float(worst[i]) == pytest.approx(float(alone.lower), abs=ROUNDING)


@pytest.mark.slow
def test_a_large_penalty_that_is_avoided_does_not_widen_the_bounds():
    model = interval_model(0)
    found = []
    for penalty in (1e2, 1e7):
        reward = jnp.concatenate(
            [model.reward, jnp.full_like(model.reward[..., :1], -penalty)], axis=-1
        )
        barred = {
            name: jnp.concatenate([x, x[..., :1, :]], axis=-2)
            for name in ("transition_lower", "transition_upper")
            for x in [getattr(model, name)]
        } | {
            name: jnp.concatenate([x, x[:1]])
            for name in ("observation_lower", "observation_upper")
            for x in [getattr(model, name)]
        }
        task = dataclasses.replace(model, reward=reward, **barred)
        found.append(solve(task, horizon=2, points=16))
    few, many = found
    assert few.converged and many.converged
    np.testing.assert_allclose(many.lower, few.lower, rtol=1e-3)
    np.testing.assert_allclose(many.upper, few.upper, rtol=1e-3)


@pytest.mark.slow
def test_zero_rewards_converge():
    model = interval_model(8)
    found = solve(
        dataclasses.replace(model, reward=0 * model.reward), horizon=3, points=16
    )
    assert bool(found.converged) and float(found.lower) <= 0 <= float(found.upper)


@pytest.mark.slow
def test_equal_actions_are_one():
    model = interval_model(9)
    twice = dataclasses.replace(
        model,
        **{
            name: jnp.concatenate([x, x[..., :1, :]], axis=-2)
            for name in ("transition_lower", "transition_upper")
            for x in [getattr(model, name)]
        },
        **{
            name: jnp.concatenate([x, x[:1]])
            for name in ("observation_lower", "observation_upper")
            for x in [getattr(model, name)]
        },
        reward=jnp.concatenate([model.reward, model.reward[:, :1]], axis=1),
    )
    one, two = (solve(m, horizon=3, points=16) for m in (model, twice))
    assert float(one.upper) == float(two.upper)
    assert int(two.plan.choice.max()) < 2


@pytest.mark.slow
def test_the_plan_can_be_played():
    pomdp = random_pomdp(10, batch=(2,))
    model = IntervalPOMDP.around(pomdp, 0.1)
    found = solve(model, horizon=4, points=16)
    keys = task_keys(jax.random.key(0), 2)
    played = rollout(keys, pomdp, found.plan, horizon=4, episodes=4000)
    earned = discounted_return(played.reward, 0.9)
    error = earned.std(-1) / np.sqrt(4000)
    for i, task in enumerate(tasks_of(pomdp)):
        law = np.swapaxes(np.asarray(task.observation), -1, -2)[None]
        law = np.asarray(task.transition)[:, :, None] * law
        plan = jax.tree.map(lambda x: x[i], found.plan)  # noqa: B023
        wanted = plan_value(task, plan, law)
        assert abs(float(earned[i].mean()) - wanted) < 4 * float(error[i])
        assert wanted >= float(found.lower[i])
    begin = found.first_actions()
    np.testing.assert_array_equal(begin, found.action(0, found.root))
    with pytest.raises(ValueError, match="t = 4: must be a stage from 0 to 3"):
        found.action(4, found.root)


@pytest.mark.parametrize(
    ("field", "index", "number", "message"),
    [
        (
            "observation_lower",
            (1, 2, 0),
            0.999,
            r"observation_lower\[1, 2, 0\] = 0.999",
        ),
        ("observation_upper", (1, 2), 0.0, r"observation_lower\[1, 2, \d\] = .* above"),
        ("transition_lower", (0, 0), 0.999, r"transition_lower\[0, 0, 1\] = 0.999: is"),
        ("initial_observation", (0, 0), 2.0, r"initial_observation\[0\]: prob"),
    ],
)
def test_invalid_intervals_are_refused(field, index, number, message):
    model = interval_model(0)
    changed = getattr(model, field).at[index].set(number)
    with pytest.raises(ValueError, match=message):
        solve(dataclasses.replace(model, **{field: changed}), horizon=2)


@pytest.fixture(scope="module")
def planned():
    return solve(interval_model(0), horizon=2, points=16)


def test_invalid_options_and_plans_are_refused(planned):
    model = interval_model(0)
    with pytest.raises(ValueError, match="certified bounds for 'pessimistic' only"):
        solve(model, horizon=2, attitude="optimistic")
    for options, message in (
        ({"gap": -1.0}, "gap = -1.0"),
        ({"replies": 1}, "replies"),
        ({"points": 0}, "points"),
    ):
        with pytest.raises(ValueError, match=message):
            IntervalPoints(**options)
    plan = planned.plan
    for change, message in (
        ({"choice": plan.choice.at[0, 1].set(2)}, r"plan.choice\[0, 1\] = 2"),
        (
            {"after": plan.after.at[0, 0, 0, 0].set(-1)},
            r"plan.after\[0, 0, 0, 0\] = -1",
        ),
        ({"weight": 2 * plan.weight}, r"plan.weight\[0, 0\]"),
        ({"after": plan.after[..., :1]}, "plan.after has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            worst_case_value(model, dataclasses.replace(plan, **change))
    with pytest.raises(ValueError, match="must be a `Plan`"):
        worst_case_value(model, np.zeros((2, 3)))
    few = Plan(plan.choice[:, :1], plan.weight[:, :1], 0 * plan.after[:, :1])
    with pytest.raises(ValueError, match="one for each first symbol, 2"):
        worst_case_value(model, few)


def test_beliefs_and_stages_are_checked(planned):
    states = planned.vector.shape[-1]
    for entry in (jnp.nan, -0.5):
        with pytest.raises(ValueError, match=rf"x\[0, 0\] = {entry}: must be a prob"):
            planned.action(0, jnp.full((1, states), 0.5).at[0, 0].set(entry))
    with pytest.raises(ValueError, match="beliefs over states"):
        planned.action(0, jnp.full((1, states + 1), 0.2))
    with pytest.raises(ValueError, match="t = 2: must be a stage from 0 to 1"):
        planned.action(jnp.int32(2), jnp.full((1, states), 1 / states))


@pytest.mark.slow
@pytest.mark.parametrize("joint", [True, False])
def test_files_and_the_command_line(tmp_path, joint):
    model = interval_model(0, joint=joint)
    path = tmp_path / "model.npz"
    save_npz(model, path)
    again = load_npz(path)
    assert again.joint is joint
    np.testing.assert_array_equal(again.observation_upper, model.observation_upper)
    call = ["solve", "--model", str(path), "--horizon", "3", "--json"]
    done = CliRunner().invoke(app, [*call, "--attitude", "pessimistic"])
    assert done.exit_code == 0, done.output
    report, found = json.loads(done.stdout), solve(model, horizon=3)
    assert report["lower"] == pytest.approx(float(found.lower))
    assert report["action"] == found.first_actions().tolist()
    refused = CliRunner().invoke(app, [*call, "--attitude", "optimistic"])
    assert refused.exit_code == 2 and "'pessimistic' only" in refused.stderr


@pytest.mark.parametrize("seed", range(5))
def test_matrix_games_have_the_value_of_the_linear_programme(seed):
    random = np.random.default_rng(seed)
    payoff = random.normal(size=(6, 5)) * 10.0 ** random.integers(-3, 4)
    rows, columns = np.arange(6) < 4, np.arange(5) < 3
    agent, nature = (
        np.asarray(x) for x in matrix_game(*map(jnp.asarray, (payoff, rows, columns)))
    )
    assert (agent[4:] == 0).all() and (nature[3:] == 0).all()
    real = payoff[:4, :3]
    best = linprog(
        np.r_[np.zeros(4), -1],
        A_ub=np.c_[-real.T, np.ones(3)],
        b_ub=np.zeros(3),
        A_eq=[np.r_[np.ones(4), 0]],
        b_eq=[1],
        bounds=[(0, 1)] * 4 + [(None, None)],
    )
    close = 1e-8 * np.abs(payoff).max()  # HiGHS and pivots, relative to the payoffs
    assert (agent[:4] @ real).min() == pytest.approx(-best.fun, abs=close)
    assert (real @ nature[:3]).max() == pytest.approx(-best.fun, abs=close)


def test_a_game_of_equal_payoffs_has_a_mixture():
    agent, nature = matrix_game(jnp.zeros((3, 3)), jnp.ones(3, bool), jnp.ones(3, bool))
    assert float(agent.sum()) == float(nature.sum()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("states", [2, 3, 5])
def test_the_hull_is_between_the_linear_programme_and_the_corners(states):
    random = np.random.default_rng(states)
    point = random.dirichlet(np.ones(states), 30)
    point[0] = np.eye(states)[0] * (1 - 1e-9) + 1e-9 / states  # almost a corner
    vectors = random.normal(size=(6, states))  # a convex function, and something above
    upper = (point @ vectors.T).max(-1) + random.uniform(0, 0.1, 30)
    corner = vectors.max(0)
    belief = random.dirichlet(np.ones(states), 20)
    belief[:3] = point[:3]
    given = map(jnp.asarray, (2 * belief, point, upper, corner))
    found = np.asarray(hull_value(*given, largest=10.0)) / 2
    columns, cost = np.r_[point, np.eye(states)].T, np.r_[upper, corner]
    for b, value in zip(belief, found, strict=True):
        best = linprog(cost, A_eq=columns, b_eq=b).fun
        assert best - 1e-7 <= value <= b @ corner + ROUNDING  # HiGHS' tolerance
        assert value >= (b @ vectors.T).max() - ROUNDING
        if states == 2:  # eight pivots are enough
            assert value == pytest.approx(best, abs=1e-7)


@pytest.mark.slow
def test_energy_tasks_have_a_small_gap():
    from sdm.solvers_jax import EnergyFamily

    pomdp = EnergyFamily().pomdp(jnp.linspace(0.25, 0.85, 4))
    found = solve(IntervalPOMDP.around(pomdp, 0.05), horizon=10, gap=0.01)
    assert bool(found.converged.all())
