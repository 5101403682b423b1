"""Solutions in folders: every bit comes back, and damage is named."""

import json
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_apomdp, random_mdp, random_pomdp, tiger
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import RobustMDP, save_npz, save_pomdp, solve
from sdm.solvers_jax.incremental_pruning import IncrementalPruning
from sdm.solvers_jax.pomdp import PointBased
from sdm.solvers_jax.solution_files import (
    load_solution,
    read_manifest,
    save_solution,
)
from sdm.storage.files import StorageError

HORIZON = 3
SET = random_apomdp(0, 0.5)


def solved():
    """Solutions of every class of model, single and in a batch."""
    few = PointBased(points=8, gap=0.0)
    return {
        "mdp": solve(random_mdp(0), horizon=HORIZON),
        "mdps": solve(random_mdp(1, 2), horizon=HORIZON),
        "robust": solve(
            RobustMDP(SET.transition, SET.reward, SET.initial, 0.3, 0.9),
            horizon=HORIZON,
        ),
        "pomdp": solve(random_pomdp(0), horizon=HORIZON, method=few),
        "pomdps": solve(random_pomdp(0, batch=(2,)), horizon=HORIZON, method=few),
        "exact": solve(random_pomdp(1), horizon=2, method=IncrementalPruning()),
        "apomdp": solve(SET, horizon=HORIZON, points=8),
    }


@pytest.fixture(scope="module")
def solutions():
    return solved()


def questions(solution, horizon):
    """Random states or beliefs for `solution.action`, and the stages."""
    batch, random = solution.value.shape, np.random.default_rng(0)
    if hasattr(solution, "policy"):
        states = solution.policy.shape[-1]
        return jnp.asarray(random.integers(0, states, (*batch, 40)), jnp.int32)
    states = solution.model.reward.shape[-2]
    return jnp.asarray(random.dirichlet(np.ones(states) / 2, (*batch, 40)))


def same_bits(first, second):
    """Whether two solutions have one class and structure and the same bits."""
    if jax.tree.structure(first) != jax.tree.structure(second):
        return False
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return type(first) is type(second) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in pairs
    )


@pytest.mark.parametrize(
    "name", ["mdp", "mdps", "robust", "pomdp", "pomdps", "exact", "apomdp"]
)
def test_every_bit_and_every_action_comes_back(solutions, tmp_path, name):
    solution = solutions[name]
    save_solution(solution, tmp_path / "kept")
    again = load_solution(tmp_path / "kept")
    assert same_bits(solution, again)
    horizon = 2 if name == "exact" else HORIZON
    x = questions(solution, horizon)
    for t in range(horizon):
        np.testing.assert_array_equal(solution.action(t, x), again.action(t, x))
    for bound in ("value", "lower", "upper"):
        before, after = getattr(solution, bound), getattr(again, bound)
        assert before is after or np.array_equal(before, after)


def test_a_folder_says_what_is_in_it(solutions, tmp_path):
    about = {"model": {"file": "own.POMDP"}}
    save_solution(solutions["pomdp"], tmp_path / "kept", about=about)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "manifest.json",
        "plan.json",
        "solution.npz",
    ]
    found = read_manifest(tmp_path / "kept")
    assert found["model"] == about["model"] and found["schema"] == 1
    assert found["provenance"]["sdm"] and found["provenance"]["versions"]["jax"]
    with np.load(tmp_path / "kept" / "solution.npz") as arrays:
        assert found["arrays"] == {
            name: {"shape": list(x.shape), "dtype": str(x.dtype)}
            for name, x in arrays.items()
        }
        np.testing.assert_array_equal(
            arrays["plans.vector"], solutions["pomdp"].plans.vector
        )


class Inside(eqx.Module):
    """A part of the solution below."""

    number: float
    rows: tuple[Any, ...]


class OwnSolution(eqx.Module):
    """A solution of another package, with every type of field."""

    value: jax.Array
    lower: None
    upper: None
    inside: Inside
    names: list[str] = eqx.field(static=True)
    count: int = eqx.field(static=True)
    certain: bool = eqx.field(static=True)

    def action(self, t, x):
        """Return action 0."""
        return jnp.zeros(x.shape[:-1], jnp.int32)


@settings(max_examples=30, deadline=None)
@given(
    number=st.floats(),
    rows=st.lists(st.integers(0, 3), max_size=3),
    names=st.lists(st.text(max_size=4), max_size=3),
    count=st.integers(),
    certain=st.booleans(),
)
def test_fields_of_other_packages_come_back(
    tmp_path_factory, number, rows, names, count, certain
):
    folder = tmp_path_factory.mktemp("own") / "kept"
    arrays = tuple(np.arange(n, dtype=np.float32) for n in rows)
    own = OwnSolution(
        jnp.float64(number), None, None, Inside(number, arrays), names, count, certain
    )
    save_solution(own, folder)
    again = load_solution(folder)
    assert (again.names, again.count, again.certain) == (names, count, certain)
    assert np.array_equal(again.inside.number, number, equal_nan=True)
    assert np.array_equal(again.value, own.value, equal_nan=True)
    assert all(map(np.array_equal, again.inside.rows, arrays))
    assert [x.dtype for x in again.inside.rows] == [x.dtype for x in arrays]


def test_what_cannot_be_kept_is_refused(tmp_path):
    own = OwnSolution(jnp.zeros(()), None, None, Inside(0.0, (print,)), [], 1, True)
    with pytest.raises(
        TypeError, match=r"`inside.rows.0` must be an array, .* builtin"
    ):
        save_solution(own, tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_replaced_silently(solutions, tmp_path):
    save_solution(solutions["mdp"], tmp_path / "kept")
    with pytest.raises(StorageError, match="exists already") as caught:
        save_solution(solutions["robust"], tmp_path / "kept")
    assert "--overwrite" in caught.value.hint
    assert same_bits(load_solution(tmp_path / "kept"), solutions["mdp"])
    save_solution(solutions["robust"], tmp_path / "kept", overwrite=True)
    assert same_bits(load_solution(tmp_path / "kept"), solutions["robust"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="was not written by sdm"):
        save_solution(solutions["mdp"], tmp_path / "foreign", overwrite=True)
    assert (tmp_path / "foreign" / "thesis.txt").read_text() == "mine"


def changed(folder, **entries):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def shortened(folder):
    path = folder / "solution.npz"
    path.write_bytes(path.read_bytes()[:-20])


def renamed(folder, name):
    path = folder / "manifest.json"
    text = path.read_text()
    path.write_text(re.sub(r'"sdm\.solvers_jax\.backward\w+:MDPSolution"', name, text))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "found no `manifest.json`"),
        (lambda f: (f / "manifest.json").write_text("{"), "damaged, found no JSON"),
        (lambda f: changed(f, schema=2), "schema 2, expected 1"),
        (lambda f: (f / "solution.npz").unlink(), "solution.npz`: missing"),
        (shortened, "solution.npz`: damaged or changed"),
        (lambda f: changed(f, solution={"array": "no"}), "damaged: 'no'"),
        (lambda f: renamed(f, '"antigravity:MDPSolution"'), "is not installed"),
        (lambda f: renamed(f, '"os:system"'), "a `os:system`, which is not installed"),
        (lambda f: renamed(f, '"pathlib:Path"'), "`pathlib:Path`, which is not inst"),
    ],
)
def test_damage_is_named_and_nothing_else_is_run(solutions, tmp_path, damage, message):
    save_solution(solutions["mdp"], tmp_path / "kept")
    damage(tmp_path / "kept")
    with pytest.raises(StorageError) as caught:
        load_solution(tmp_path / "kept")
    assert message in str(caught.value) and str(tmp_path / "kept") in str(caught.value)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_double_precision_is_not_lost_silently(solutions, tmp_path):
    save_solution(solutions["mdp"], tmp_path / "kept")
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ValueError, match=r"double precision: call `jax\.config"):
            load_solution(tmp_path / "kept")
    finally:
        jax.config.update("jax_enable_x64", True)


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.mark.slow
def test_a_model_of_ones_own_is_solved_kept_played_and_exported(tmp_path):
    file, out = tmp_path / "tiger.POMDP", tmp_path / "kept"
    save_pomdp(tiger(), file, actions=["listen", "left", "right"])
    ask = ["solve", "--model", file, "--horizon", 3, "--out", out, "--json"]
    done = run(*ask, "--simulate", 500, "--seed", 1)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["episodes"] == 500 and report["out"] == str(out)
    assert report["simulated_low"] < report["simulated_mean"] < report["simulated_high"]
    kept = load_solution(out)
    assert float(kept.value) == report["value"]
    assert int(kept.action(0, jnp.full((1, 2), 0.5))[0]) == report["action"] == 0
    about = read_manifest(out)
    assert about["actions"] == ["listen", "left", "right"] and about["horizon"] == 3
    assert about["model"]["file"] == str(file) and len(about["model"]["sha256"]) == 64

    refused = run(*ask)
    assert refused.exit_code == 2 and "`--overwrite`" in refused.stderr
    again = run(*ask, "--overwrite", "--simulate", 500, "--seed", 1)
    same = json.loads(again.stdout)
    other = json.loads(run(*ask, "--overwrite", "--simulate", 500).stdout)
    assert same["simulated_mean"] == report["simulated_mean"]
    assert same["simulated_mean"] != other["simulated_mean"]

    policy = tmp_path / "policy"
    done = run("export", out, "--out", policy, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["stages"] == 3
    assert len(list(policy.glob("stage-*.policy"))) == 3
    refused = run("export", out, "--out", policy)
    assert refused.exit_code == 2 and "exists already" in refused.stderr


@pytest.mark.slow
def test_what_cannot_be_done_is_said(tmp_path):
    save_npz(SET, tmp_path / "set.npz")
    done = run("solve", "--tasks", 1, "--simulate", 3)
    assert done.exit_code == 2 and "`--simulate` needs `--model`" in done.stderr
    out = tmp_path / "kept"
    ask = ["solve", "--model", tmp_path / "set.npz", "--horizon", 2, "--points", 8]
    done = run(*ask, "--out", out, "--simulate", 1, "--json")
    report = json.loads(done.stdout)
    assert len(report["simulated_mean"]) == len(SET.transition)
    assert report["simulated_low"] == [None] * len(SET.transition)  # of one episode
    done = run("export", out, "--out", tmp_path / "policy")
    assert done.exit_code == 2 and "APOMDPSolution has none" in done.stderr
    assert not (tmp_path / "policy").exists()
    done = run("export", tmp_path, "--out", tmp_path / "policy")
    assert done.exit_code == 2 and "must be a dataset of" in done.stderr
    done = run("solve", "--model", tmp_path / "set.npz", "--out", tmp_path)
    assert done.exit_code == 2 and "would replace the input" in done.stderr
