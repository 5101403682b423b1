"""Rectangular robust MDPs: enumeration, published values, limits, policies, files."""

import itertools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_apomdp, random_mdp, tasks_of
from robot_grid import GOAL, STATES, robot_grid
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import (
    KLMDP,
    L1MDP,
    MDP,
    IntervalMDP,
    RectangularBackwardInduction,
    RobustMDP,
    TabularPolicy,
    load_npz,
    methods_for,
    save_npz,
    solve,
    worst_case_value,
)
from sdm.solvers_jax.rectangular_mdp import (
    nature_rows,
    rectangular_backward_induction,
)
from sdm.tasks.transition_lists import sparse

ATTITUDES = ["pessimistic", "optimistic"]


def ball(kind, mdp, radius):
    radius = jnp.full_like(mdp.reward, radius)
    return kind(mdp.transition, radius, mdp.reward, mdp.initial, mdp.discount)


def every_kind(seed=0, states=3):
    mdp = random_mdp(seed, states=states)
    hull = random_apomdp(seed, 0.5, models=3, states=states)
    return [
        IntervalMDP.around(mdp, 0.1),
        ball(L1MDP, mdp, 0.3),
        ball(KLMDP, mdp, 0.2),
        RobustMDP(hull.transition, hull.reward, hull.initial, 1.0, 0.9),
    ]


def ends_of_rows(lower, upper):
    """The two extreme rows of an interval set over two states."""
    least = max(lower[0], 1 - upper[1])
    most = min(upper[0], 1 - lower[1])
    return [[least, 1 - least], [most, 1 - most]]


@pytest.mark.parametrize("attitude", ATTITUDES)
def test_value_is_that_of_all_policies_against_all_extreme_laws(attitude):
    model = IntervalMDP.around(random_mdp(3, states=2), 0.15)
    lower, upper = (
        np.asarray(x) for x in (model.transition_lower, model.transition_upper)
    )
    reward, initial = np.asarray(model.reward), np.asarray(model.initial)
    pairs = list(itertools.product(range(2), range(2)))  # states and actions
    rows = [ends_of_rows(lower[at], upper[at]) for at in pairs]
    laws = [dict(zip(pairs, law, strict=True)) for law in itertools.product(*rows)]
    nature = min if attitude == "pessimistic" else max

    def worth(policy, law):
        last = reward[[0, 1], policy[2:]]
        first = [
            reward[s, policy[s]] + 0.9 * np.dot(law[s, policy[s]], last)
            for s in range(2)
        ]
        return initial @ first

    # The last decision has no future, so that one law, that of stage 0, matters.
    wanted = max(
        nature(worth(np.array(policy), law) for law in laws)
        for policy in itertools.product(range(2), repeat=4)
    )
    found = solve(model, horizon=2, attitude=attitude)
    assert float(found.value) == pytest.approx(wanted, abs=ROUNDING)
    assert float(found.lower) == float(found.upper) == float(found.value)


@pytest.mark.slow
@pytest.mark.parametrize("attitude", ATTITUDES)
@pytest.mark.parametrize("model", every_kind(), ids=lambda m: type(m).__name__)
def test_the_policy_earns_the_value_under_the_laws_of_nature(model, attitude):
    found = rectangular_backward_induction(model, horizon=5, attitude=attitude)
    value, policy = np.zeros(3), np.asarray(found.policy)
    for t in reversed(range(5)):
        law, chosen = np.asarray(found.nature(t)), policy[t]
        np.testing.assert_allclose(law.sum(-1), 1, atol=ROUNDING)
        stay = np.arange(3)
        paid = np.asarray(model.reward)[stay, chosen]
        value = paid + 0.9 * law[stay, chosen] @ value
    assert model.initial @ value == pytest.approx(float(found.value), abs=ROUNDING)
    earned = worst_case_value(model, found.policy, attitude=attitude)
    assert float(earned) == pytest.approx(float(found.value), abs=ROUNDING)
    with pytest.raises(ValueError, match="t = 5: must be a stage from 0 to 4"):
        found.nature(5)


@pytest.mark.slow
@pytest.mark.parametrize("model", every_kind(1), ids=lambda m: type(m).__name__)
def test_no_policy_beats_the_value_and_no_law_is_worse_than_the_worst(model):
    random = np.random.default_rng(0)
    best = float(rectangular_backward_induction(model, horizon=4).value)
    for _ in range(5):
        policy = random.dirichlet(np.ones(2), (4, 3))
        worst = float(worst_case_value(model, jnp.asarray(policy)))
        assert worst <= best + ROUNDING
        value = np.zeros(3)
        for t in reversed(range(4)):  # a law of the set at every stage
            towards = jnp.asarray(random.normal(size=3))
            law = np.asarray(nature_rows(model, towards))
            q = np.asarray(model.reward) + 0.9 * law @ value
            value = (policy[t] * q).sum(-1)
        assert worst <= model.initial @ value + ROUNDING


def test_the_hull_of_models_is_a_robust_mdp():
    model = every_kind()[-1]
    for alpha, attitude in ((1.0, "pessimistic"), (0.0, "optimistic")):
        mixed = eqx.tree_at(lambda m: m.alpha, model, alpha)
        found = rectangular_backward_induction(model, horizon=6, attitude=attitude)
        np.testing.assert_allclose(
            found.q, solve(mixed, horizon=6).q, rtol=0, atol=ROUNDING
        )


def test_sets_without_width_are_an_mdp():
    mdp = random_mdp(0, 4)
    wanted = solve(mdp, horizon=6).q
    models = (IntervalMDP.around(mdp, 0.0), ball(L1MDP, mdp, 0.0), ball(KLMDP, mdp, 0))
    for model in models:
        for attitude in ATTITUDES:
            found = solve(model, horizon=6, attitude=attitude)
            np.testing.assert_allclose(found.q, wanted, rtol=0, atol=ROUNDING)


def test_sets_of_everything_lead_to_the_worst_successor():
    mdp = random_mdp(0)
    wide = solve(IntervalMDP.around(mdp, 1.0), horizon=2)
    last = np.asarray(mdp.reward).max(-1)
    wanted = np.asarray(mdp.reward) + 0.9 * last.min()
    np.testing.assert_allclose(wide.q[0], wanted, atol=ROUNDING)
    infinite = solve(ball(L1MDP, mdp, np.inf), horizon=2)
    np.testing.assert_allclose(infinite.q[0], wanted, atol=ROUNDING)
    # With zeros in the nominal rows, the worst successor of the others.
    moves = jnp.asarray(
        np.eye(3)[[[0, 1], [1, 2], [2, 0]]] / 2 + np.eye(3)[:, None] / 2
    )
    model = ball(KLMDP, eqx.tree_at(lambda m: m.transition, mdp, moves), np.inf)
    worst = np.where(np.asarray(moves) > 0, last, np.inf).min(-1)
    found = solve(model, horizon=2).q[0]
    np.testing.assert_allclose(found, np.asarray(mdp.reward) + 0.9 * worst)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attitude", "published"), [("pessimistic", 0.89466298), ("optimistic", 0.999998)]
)
def test_robot_in_a_grid_has_its_published_probability(attitude, published):
    """Reaching the goal in 100 moves, from IntervalMDP.jl, printed with 8 digits."""
    lower, upper = robot_grid()
    ends = np.zeros((2, STATES + 1, 4, STATES + 1))
    ends[:, :-1, :, :-1] = lower, upper
    ends[:, [GOAL, STATES]] = np.eye(STATES + 1)[STATES]  # the goal is paid for once
    reward = np.zeros((STATES + 1, 4))
    reward[GOAL] = 1
    start = np.eye(STATES + 1)[0]
    model = IntervalMDP(*map(jnp.asarray, (*ends, reward, start)), 1.0)
    found = solve(model, horizon=101, attitude=attitude)
    assert float(found.value) == pytest.approx(published, abs=1e-8)


@pytest.mark.slow
def test_units_of_reward_order_of_states_and_batches_do_not_matter():
    order = np.array([2, 0, 1])
    for model in every_kind()[:3]:
        value = float(solve(model, horizon=4).value)
        moved = jax.tree.map(
            lambda x: x[order][..., order] if np.ndim(x) == 3 else x[order],
            eqx.tree_at(lambda m: m.discount, model, jnp.zeros(3)),
        )
        moved = eqx.tree_at(lambda m: m.discount, moved, 0.9)
        assert float(solve(moved, horizon=4).value) == pytest.approx(value)
        paid = eqx.tree_at(lambda m: m.reward, model, 3 * model.reward - 2)
        years = sum(0.9**t for t in range(4))
        found = float(solve(paid, horizon=4).value)
        assert found == pytest.approx(3 * value - 2 * years)
    batch = IntervalMDP.around(random_mdp(5, 3), 0.1)
    together = solve(batch, horizon=4)
    policy = np.random.default_rng(1).dirichlet(np.ones(2), (3, 4, 3))
    worst = worst_case_value(batch, TabularPolicy(jnp.asarray(policy)))
    for i, task in enumerate(tasks_of(batch)):
        alone = solve(task, horizon=4)
        np.testing.assert_allclose(together.q[i], alone.q, rtol=0, atol=ROUNDING)
        one = worst_case_value(task, jnp.asarray(policy[i]))
        assert float(worst[i]) == pytest.approx(float(one), abs=ROUNDING)


@pytest.mark.parametrize(
    ("kind", "field", "index", "number", "message"),
    [
        (0, "transition_lower", (0, 1, 2), 0.99, r"lower\[0, 1, 2\] = 0.99: is above"),
        (0, "transition_lower", (0, 1, 2), -0.1, r"lower\[0, 1, 2\] = -0.1: prob"),
        (0, "transition_lower", (0, 1, 2), np.nan, "must be finite"),
        (0, "transition_upper", (1, 0), 0.2, r"upper\[1, 0\]: upper ends sum to 0.6"),
        (1, "radius", (1, 0), -0.5, r"radius\[1, 0\] = -0.5: must be 0 or more"),
        (2, "radius", (1, 0), np.nan, r"radius\[1, 0\] = nan: must be 0 or more"),
        (2, "transition", (1, 0), 0.2, r"transition\[1, 0\]: probabilities sum to 0.6"),
        (1, "reward", (1, 0), np.inf, "reward"),
        (0, "initial", 0, 0.9, "initial: probabilities sum"),
    ],
)
def test_invalid_sets_are_refused(kind, field, index, number, message):
    model = every_kind()[kind]
    if field == "transition_upper":
        low = model.transition_lower.at[index].set(0.0)
        model = eqx.tree_at(lambda m: m.transition_lower, model, low)
    changed = getattr(model, field).at[index].set(number)
    broken = eqx.tree_at(lambda m: getattr(m, field), model, changed)
    with pytest.raises(ValueError, match=message):
        solve(broken, horizon=2)


def test_empty_sets_shapes_and_attitudes_are_refused():
    model = every_kind()[0]
    full = eqx.tree_at(
        lambda m: (m.transition_lower, m.transition_upper),
        model,
        (jnp.full((3, 2, 3), 0.4), jnp.ones((3, 2, 3))),
    )
    with pytest.raises(ValueError, match=r"lower\[0, 0\]: lower ends sum to 1.2"):
        solve(full, horizon=2)
    ball = every_kind()[1]
    object.__setattr__(ball, "transition", sparse(ball.transition))
    with pytest.raises(ValueError, match="is a SparseTransition: must be an array"):
        solve(ball, horizon=2)
    short = eqx.tree_at(lambda m: m.transition_upper, model, jnp.ones((3, 2, 2)))
    with pytest.raises(ValueError, match=r"transition_upper has shape \(3, 2, 2\)"):
        solve(short, horizon=2)
    with pytest.raises(ValueError, match="attitude = 'hopeful': must be one of pess"):
        solve(model, horizon=2, attitude="hopeful")
    with pytest.raises(ValueError, match="half_width = -1"):
        IntervalMDP.around(random_mdp(0), -1.0)
    with pytest.raises(TypeError, match="MDP models have no rectangular sets"):
        worst_case_value(random_mdp(0), jnp.zeros((2, 3), jnp.int32))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.full((2, 3), 2), r"policy\[0, 0\] = 2: must be an action from 0 to 1"),
        (np.full((2, 3, 2), 0.4), r"policy\[0, 0\] = .*sum to 1"),
        (np.zeros((2, 4), int), r"policy has shape \(2, 4\): must be \[\*B, T, S\]"),
        (np.zeros((0, 3), int), "must have a stage"),
        (np.zeros((1, 2, 3, 2)), r"must be \[\*B, T, S, A\]"),
    ],
)
def test_invalid_policies_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        worst_case_value(every_kind()[0], policy)


@pytest.mark.slow
@pytest.mark.parametrize("model", every_kind()[:3], ids=lambda m: type(m).__name__)
def test_files_and_the_command_line(tmp_path, model):
    path = tmp_path / "model.npz"
    save_npz(model, path)
    again = load_npz(path)
    assert type(again) is type(model) and eqx.tree_equal(model, again)
    for attitude in ATTITUDES:
        call = ["solve", "--model", str(path), "--horizon", "4", "--json"]
        done = CliRunner().invoke(app, [*call, "--attitude", attitude])
        assert done.exit_code == 0, done.output
        report = json.loads(done.stdout)
        found = solve(model, horizon=4, attitude=attitude)
        assert report["value"] == pytest.approx(float(found.value))
        assert report["kind"] == type(model).__name__
        assert report["action"] == np.asarray(found.policy[0]).tolist()


def test_the_command_line_refuses_an_attitude_without_sets(tmp_path):
    done = CliRunner().invoke(app, ["solve", "--attitude", "optimistic"])
    assert done.exit_code == 2 and "needs `--model`" in done.stderr
    path = tmp_path / "model.npz"
    save_npz(every_kind()[0], path)
    call = ["solve", "--model", str(path), "--horizon", "2", "--attitude", "hopeful"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2 and "attitude = 'hopeful'" in done.stderr


def test_a_class_of_its_own_registers_its_sets():
    """A new class of sets needs its check and its rows, and nothing else."""
    known = type(every_kind()[0]).__mro__[1]

    class Shaken(known):
        transition: jax.Array
        reward: jax.Array
        initial: jax.Array
        discount: float

        def check(self):
            if self.transition.shape[-1] != 3:
                raise ValueError("not three states")

    @nature_rows.register
    def _(model: Shaken, value: jax.Array) -> jax.Array:
        worst = jax.nn.one_hot(value.argmin(-1), 3, dtype=value.dtype)
        return 0.8 * model.transition + 0.2 * worst[None, None]

    mdp = random_mdp(0)
    model = Shaken(mdp.transition, mdp.reward, mdp.initial, 0.9)
    assert list(methods_for(Shaken)) == [RectangularBackwardInduction.name]
    mixed = solve(model, horizon=3)
    assert float(mixed.value) < float(
        solve(MDP(*mdp.__dict__.values()), horizon=3).value
    )
