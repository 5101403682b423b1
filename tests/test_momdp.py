"""Models with mixed observability: checks, files, flat models, filter, episodes."""

import itertools
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_mdp
from random_momdps import outcomes, random_momdp, starts, value
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import (
    MDP,
    MOMDP,
    HiddenFilter,
    HiddenPolicy,
    check_model,
    export_policy,
    flat_mdp,
    flat_pomdp,
    hidden_model,
    load_npz,
    load_solution,
    rollout,
    save_npz,
    save_solution,
    solve,
)
from sdm.solvers_jax.momdp_moves import moves_of
from sdm.tasks.models import batch_shape
from sdm.tasks.momdp_flat import SeesVisible
from sdm.tasks.rollout import discounted_return, task_keys
from sdm.tasks.simulation import simulate
from sdm.tasks.transitions import SparseTransition, dense

T = 3
EVERY = {"symbols": 2, "first": True, "visible": 4, "lists": 2, "masked": True}
KINDS = {
    "every": EVERY,
    "constant": {"constant": True, "hidden": 4},
    "rewards": {"constant": True, "observes_reward": True},
}


def as_numpy(model):
    return jax.tree.map(np.asarray, model)


def with_lists(model):
    """The same model in NumPy, with lists of successors."""
    model = eqx.tree_at(
        lambda m: m.successors, model, model.listed(), is_leaf=lambda x: x is None
    )
    return as_numpy(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_model_in_a_file_is_the_same(tmp_path, kind, batch):
    model = random_momdp(0, batch=batch, **KINDS[kind])
    save_npz(model, tmp_path / "own.npz")
    again = load_npz(tmp_path / "own.npz")
    assert jax.tree.structure(model) == jax.tree.structure(again)
    for x, y in zip(*map(jax.tree.leaves, (model, again)), strict=True):
        np.testing.assert_array_equal(x, y)
    assert again.observes_reward == model.observes_reward
    assert batch_shape(again) == batch


def changed(name, value):
    def change(model):
        return eqx.tree_at(
            lambda m: getattr(m, name), model, value, is_leaf=lambda x: x is None
        )

    return change


def entry(name, place, value):
    return lambda m: changed(name, getattr(m, name).at[place].set(value))(m)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (entry("transition", (1, 0, 1, 0), -0.5), r"transition\[1, 0, 1, 0\] = -0.5"),
        (entry("hidden_transition", (0, 1, 0, 1, 0), 2.0), r"sum to"),
        (entry("initial", (0, 0), 2.0), "initial: probabilities sum to"),
        (entry("reward", (0, 0, 0), np.inf), r"reward\[0, 0, 0\] = inf"),
        (entry("successors", (2, 0, 1), 4), r"successors\[2, 0, 1\] = 4: must be from"),
        (entry("successors", (2, 0, 1), -1), r"successors\[2, 0, 1\] = -1"),
        (entry("admissible", 1, False), r"admissible\[1\]: no action is admissible"),
        (changed("observation", jnp.ones((2, 4, 2, 3)) / 3), "initial_observation has"),
        (changed("observation", None), "observation: must be given"),
        (changed("reward", jnp.ones((4, 2, 2), jnp.float32)), "has dtype float64"),
        (
            changed("reward", jnp.ones((4, 3, 2))),
            r"transition has shape \(4, 2, 2, 2\)",
        ),
        (changed("successors", jnp.zeros((4, 2, 3), int)), r"transition has shape"),
        (changed("admissible", jnp.ones((4, 2))), "admissible has dtype float64"),
        (changed("discount", 1.5), "discount = 1.5"),
    ],
)
def test_invalid_models_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_model(change(random_momdp(0, **EVERY)))


def test_successors_that_are_no_indices_are_refused(tmp_path):
    model = random_momdp(0, **EVERY)
    save_npz(model, tmp_path / "own.npz")
    arrays = dict(np.load(tmp_path / "own.npz"))
    arrays["successors"] = arrays["successors"] + 0.5
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises((ValueError, TypeError), match="successors"):
        load_npz(tmp_path / "own.npz")


@pytest.mark.slow
def test_lists_and_all_successors_agree():
    """A list in another order, with one successor twice, is the same model."""
    model = random_momdp(1, constant=True)
    visible, _, actions, _ = model.sizes
    order = np.array([2, 0, 1, 0])
    part = np.asarray(model.transition)[..., order]
    part[..., 1] *= 0.25
    part[..., 3] *= 0.75
    index = np.broadcast_to(order, (visible, actions, 4))
    lists = MOMDP(jnp.asarray(part), model.reward, model.initial, 0.9, index)
    check_model(lists)
    one, two = (solve(m, horizon=T, gap=0.0, points=16) for m in (model, lists))
    np.testing.assert_allclose(one.lower, two.lower, rtol=ROUNDING)
    np.testing.assert_allclose(one.upper, two.upper, rtol=ROUNDING)
    flat = (dense(flat_pomdp(m).transition) for m in (model, lists))
    np.testing.assert_allclose(*flat, rtol=ROUNDING)
    state = HiddenFilter(batch_of(model)).start(jnp.zeros((1, 3), jnp.int32))
    after = [
        HiddenFilter(batch_of(m))
        .update(
            state, jnp.zeros((1, 3), jnp.int32), jnp.arange(3, dtype=jnp.int32)[None]
        )
        .belief
        for m in (model, lists)
    ]
    np.testing.assert_allclose(*after, rtol=ROUNDING)


def batch_of(model):
    return jax.tree.map(lambda x: x[None] if np.ndim(x) else x, model)


def test_flat_transitions_are_products_of_the_factors():
    model = random_momdp(2, **EVERY)
    visible, hidden, actions, _ = model.sizes
    flat = flat_pomdp(model)
    assert isinstance(flat.transition, SparseTransition)
    check_model(flat)
    wanted = np.zeros((visible * hidden, actions, visible * hidden))
    sizes = map(range, (visible, hidden, actions, 2, hidden))
    for x, y, a, n, z in itertools.product(*sizes):
        mass = model.transition[x, y, a, n] * model.hidden_transition[x, y, a, n, z]
        wanted[x * hidden + y, a, int(model.successors[x, a, n]) * hidden + z] += mass
    np.testing.assert_allclose(dense(flat.transition), wanted, rtol=ROUNDING)
    world = flat_mdp(model)
    check_model(world)
    assert world.reward.shape[0] == visible * hidden * 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_filter_is_that_of_the_histories(kind):
    model = random_momdp(3, **KINDS[kind])
    host, steps = with_lists(model), HiddenFilter(batch_of(model))
    compared = 0

    def one(x):
        return jnp.asarray([[x]], jnp.int32)

    for x, o, joint in starts(host):
        state = steps.start(one(x), one(o))
        np.testing.assert_allclose(state.belief[0, 0], joint / joint.sum())
        for a in range(model.sizes[2]):
            for y, p, paid, after in outcomes(host, joint, x, a):
                if after.sum() == 0:
                    continue
                reward = None if paid is None else jnp.asarray([[paid]])
                found = steps.update(state, one(a), one(y), one(p), reward)
                wanted = after / after.sum()
                np.testing.assert_allclose(found.belief[0, 0], wanted, rtol=ROUNDING)
                assert found.impossible[0, 0] == 0 and found.visible[0, 0] == y
                compared += 1
    assert compared > 10


def test_impossible_observations_are_counted():
    model = random_momdp(0, visible=4, lists=2)
    steps = HiddenFilter(batch_of(model))
    state = steps.start(jnp.zeros((1, 1), jnp.int32))
    other = next(x for x in range(4) if x not in model.successors[0, 0])
    after = steps.update(
        state, jnp.zeros((1, 1), jnp.int32), jnp.full((1, 1), other, jnp.int32)
    )
    assert after.impossible[0, 0] == 1 and after.visible[0, 0] == other
    np.testing.assert_array_equal(after.belief, state.belief)
    with pytest.raises(ValueError, match=r"visible\[0, 0\] = 4"):
        steps.start(jnp.full((1, 1), 4, jnp.int32))


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_returns_are_those_of_the_policy(kind):
    model = random_momdp(4, **KINDS[kind])
    solution = solve(model, horizon=T, gap=0.0, points=2)

    def choose(t, x, belief):
        state = jnp.asarray([x], jnp.int32)
        return int(solution.action(t, (state, jnp.asarray(belief)[None]))[0])

    earned = value(model, T, choose)
    found = simulate(jax.random.key(0), model, solution, horizon=T, episodes=4000)
    half = float(found.high[0] - found.low[0]) / 2
    # Four standard errors: a chance of 6e-5 by mistake.
    assert abs(found.mean[0] - earned) <= 4 / 1.96 * half
    assert 0 < half < 0.2


@pytest.mark.slow
def test_episodes_of_both_flat_models_have_the_same_mean():
    model = random_momdp(5, **EVERY)
    batch = batch_of(model)
    solution = solve(batch, horizon=T, points=2)
    policy = HiddenPolicy(solution, HiddenFilter(batch))
    returns = []
    for world, acts in (
        (flat_pomdp(batch), policy),
        (flat_mdp(batch), SeesVisible(policy, 2, 2)),
    ):
        keys = task_keys(jax.random.key(1), 1)
        seen = rollout(keys, world, acts, horizon=T, episodes=4000)
        returns.append(np.asarray(discounted_return(seen.reward[0], 0.9)))
    error = np.hypot(*(x.std() / np.sqrt(len(x)) for x in returns))
    assert abs(returns[0].mean() - returns[1].mean()) < 4 * error


def test_an_exported_policy_earns_its_certificate(tmp_path):
    model = random_momdp(6, **EVERY)
    solution = solve(model, horizon=T, gap=0.0, points=2)
    policy = []
    for path in export_policy(solution, tmp_path):
        rows = list(ElementTree.parse(path).getroot().find("AlphaVector"))
        vectors = np.array([list(map(float, each.text.split())) for each in rows])
        seen = np.array([int(each.get("obsValue")) for each in rows])
        policy.append((vectors, seen, [int(each.get("action")) for each in rows]))
    assert len(policy) == T and set(policy[1][1]) == set(range(4))

    def choose(t, x, belief):
        vectors, seen, actions = policy[t]
        score = np.where(seen == x, vectors @ belief, -np.inf)
        return actions[int(score.argmax())]

    earned = value(model, T, choose)
    assert float(solution.lower) <= earned <= float(solution.upper) + ROUNDING


@pytest.mark.slow
def test_a_solution_that_was_kept_acts_the_same(tmp_path):
    model = random_momdp(7, batch=(2,), constant=True)
    solution = solve(model, horizon=T, points=2)
    save_solution(solution, tmp_path / "kept")
    again = load_solution(tmp_path / "kept")
    for x, y in zip(*map(jax.tree.leaves, (solution, again)), strict=True):
        np.testing.assert_array_equal(x, y)
    state = jnp.zeros((2, 5), jnp.int32)
    belief = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(2), (2, 5)))
    for t in range(T):
        np.testing.assert_array_equal(
            solution.action(t, (state, belief)), again.action(t, (state, belief))
        )


@pytest.mark.slow
def test_a_file_is_solved_played_and_kept(tmp_path):
    model = random_momdp(8, **EVERY)
    save_npz(model, tmp_path / "own.npz")
    call = ["solve", "--model", str(tmp_path / "own.npz"), "--horizon", "3", "--json"]
    call += ["--simulate", "2000", "--out", str(tmp_path / "kept"), "--gap", "0"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    wanted = value(model, T)
    assert report["lower"] - ROUNDING <= wanted <= report["upper"] + ROUNDING
    assert report["kind"] == "MOMDP" and np.shape(report["action"]) == (4, 2)
    assert report["simulated_low"] < report["upper"]
    assert load_solution(tmp_path / "kept").value == report["value"]


def test_a_hidden_model_needs_candidates_and_their_prior():
    models, prior = random_mdp(0, 2), jnp.array([0.5, 0.5])
    found = hidden_model(models, prior)
    check_model(found)
    assert found.batch == () and found.sizes == (3, 2, 2, 1)
    np.testing.assert_allclose(
        found.transition[1, 0, 1], models.transition[0, 1, 1], rtol=ROUNDING
    )
    shared = hidden_model(models, jnp.ones((4, 2)) / 2)
    assert shared.shared and shared.batch == (4,)
    with pytest.raises(ValueError, match=r"prior has shape \(3,\): must be \[\*B, K\]"):
        hidden_model(models, jnp.ones(3) / 3)
    with pytest.raises(ValueError, match="prior: probabilities sum to 2"):
        hidden_model(models, jnp.ones(2))
    with pytest.raises(ValueError, match=r"must be \[K, S, A\]"):
        hidden_model(random_mdp(0), prior)


def test_candidates_can_have_lists_of_their_own():
    random = np.random.default_rng(0)
    order = np.argsort(random.random((2, 4, 2, 4)), axis=-1)[..., :2]
    chance = random.dirichlet(np.ones(2), (2, 4, 2))
    models = MDP.sparse(
        order,
        chance,
        random.normal(size=(2, 4, 2)),
        random.dirichlet(np.ones(4), 2),
        0.9,
    )
    full = eqx.tree_at(lambda m: m.transition, models, dense(models.transition))
    prior = jnp.array([0.3, 0.7])
    one, two = (
        solve(hidden_model(m, prior), horizon=T, gap=0.0, points=16)
        for m in (models, full)
    )
    np.testing.assert_allclose(one.lower, two.lower, rtol=ROUNDING)
    np.testing.assert_allclose(one.upper, two.upper, rtol=ROUNDING)


@pytest.mark.slow
def test_the_code_of_the_documentation_runs():
    page = Path(__file__).resolve().parents[1] / "docs" / "solvers" / "momdp.md"
    first, second = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S)
    names = {}
    exec(first, names)
    solution, exact = names["solution"], value(names["model"], 8)
    assert solution.converged and solution.lower <= exact <= solution.upper
    assert names["actions"].tolist() == [0, 1], "wait if mild, treat if severe"
    exec(second, names)
    plan, seen = names["plan"], names["episodes"].reward
    known = solve(names["models"], horizon=10).value
    assert (plan.upper <= names["prior"] @ known + ROUNDING).all()
    assert (plan.lower <= plan.upper).all() and plan.converged.all()
    assert seen.shape == (2, 5, 10)


def test_states_of_the_flat_mdp_have_the_symbols_of_the_flat_pomdp():
    """Exactly: its rows are P(s' | s, a) Z(o' | s', a), whatever o was."""
    model = random_momdp(9, **EVERY)
    (visible, hidden, actions, symbols), flat = model.sizes, flat_pomdp(model)
    world, states = flat_mdp(model), visible * hidden
    shown = np.zeros((actions, states, symbols))
    for x in range(visible):
        rows = np.asarray(model.observation)[:, x]
        shown[:, x * hidden : (x + 1) * hidden] = rows
    wanted = np.einsum("sam,amo->samo", dense(flat.transition), shown)
    wanted = np.repeat(wanted.reshape(states, actions, -1), symbols, axis=0)
    np.testing.assert_allclose(dense(world.transition), wanted, atol=ROUNDING)
    first = np.asarray(model.initial)[..., None] * model.initial_observation
    np.testing.assert_allclose(world.initial, first.reshape(-1), rtol=ROUNDING)

    class Echo(eqx.Module):
        def init(self, model):
            return None

        def act(self, memory, t, observation, reward, key):
            return observation, memory

    numbers = np.arange(states * symbols)
    x, o = numbers // (hidden * symbols), numbers % symbols
    keys = jax.random.split(jax.random.key(0), (1, len(numbers)))
    asked = jnp.asarray(numbers, jnp.int32)[None]
    seen, _ = SeesVisible(Echo(), hidden, symbols).act(
        None, 0, asked, jnp.zeros(asked.shape), keys
    )
    np.testing.assert_array_equal(seen[0], x * symbols + o)


def test_equal_actions_share_their_moves_and_others_do_not():
    model = random_momdp(10, actions=3)
    paid = model.reward.at[..., 1].set(model.reward[..., 0])
    paid = paid.at[..., 2].set(model.reward[..., 0])
    twice = eqx.tree_at(
        lambda m: (m.reward, m.transition, m.hidden_transition),
        model,
        (
            paid,
            model.transition.at[:, :, 1].set(model.transition[:, :, 0]),
            model.hidden_transition.at[:, :, 1].set(model.hidden_transition[:, :, 0]),
        ),
    )
    lists = np.asarray(moves_of(twice, horizon=1).lists)
    np.testing.assert_array_equal(lists[:, 0], lists[:, 1])
    assert not (lists[:, 0] == lists[:, 2]).any()
