"""`sdm solve --model` by depth-first search, as a user runs it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import alternating, random_pomdp, tiger
from test_policy_of_solutions import read_policy
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import (
    DepthFirst,
    IntervalMDP,
    OneTask,
    batch_of_one,
    belief_filter,
    load_npz,
    load_solution,
    save_npz,
    solve,
)

run = CliRunner().invoke


@pytest.fixture
def file(tmp_path):
    save_npz(tiger(0.8), tmp_path / "tiger.npz")
    return str(tmp_path / "tiger.npz")


@pytest.mark.slow
def test_a_model_without_a_horizon_is_solved_kept_played_and_exported(file, tmp_path):
    kept = str(tmp_path / "kept")
    ask = ["solve", "--model", file, "--gap", "0.001", "--out", kept, "--json"]
    found = run(app, [*ask, "--simulate", "400", "--plot", str(tmp_path / "a.png")])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["method"] == "search" and report["horizon"] is None
    assert report["converged"] and "truncation_error" not in report
    assert report["upper"] - report["lower"] <= 0.001 * report["upper"]
    # Lines of bounds come before the report.
    assert "s: value between" in found.stderr
    assert report["simulated_horizon"] == 31  # 0.8^31 < 0.001
    assert report["simulated_low"] <= report["upper"]
    # Four standard errors, instead of the two of the interval: fails once in 30,000.
    spread = report["simulated_mean"] - report["simulated_low"]
    assert report["simulated_mean"] + 2 * spread >= report["lower"] - 0.1
    assert (tmp_path / "a.png").stat().st_size > 0

    solution = load_solution(kept)
    assert float(solution.lower) == report["lower"]
    # Listening is right at first, and opening a door once the belief is sure.
    beliefs = jnp.array([[0.5, 0.5], [0.01, 0.99], [0.99, 0.01]])
    assert solution.action(5, beliefs).tolist() == [0, 1, 2]

    policy = tmp_path / "policy"
    done = run(app, ["export", kept, "--out", str(policy), "--json"])
    assert json.loads(done.stdout)["stages"] == 1
    vectors, actions, _ = read_policy(policy / "stage-000.policy")
    best = vectors @ np.array([0.5, 0.5])
    assert best.max() == pytest.approx(report["lower"], abs=1e-9)
    assert actions[int(best.argmax())] == 0


@pytest.mark.slow
def test_a_horizon_and_a_name_choose_the_method(file):
    ask = ["solve", "--model", file, "--json", "--horizon", "3"]
    assert json.loads(run(app, ask).stdout)["method"] == "points"
    searched = run(app, [*ask, "--method", "search", "--points", "5"])
    report = json.loads(searched.stdout)
    assert report["method"] == "search" and report["horizon"] == 3
    assert (
        "`--points` has no effect for POMDP models with the method" in searched.stderr
    )
    # `--points` says which method is meant.
    points = run(app, ["solve", "--model", file, "--json", "--points", "8"])
    assert json.loads(points.stdout)["method"] == "points"


@pytest.mark.slow
def test_a_large_model_is_searched_and_a_missed_gap_is_said(tmp_path):
    model = random_pomdp(0, states=40, actions=6, symbols=20, first=False)
    assert DepthFirst.suits(model) and not DepthFirst.suits(tiger())
    weekly = eqx.tree_at(lambda m: m.reward, model, jnp.stack([model.reward] * 4))
    assert not DepthFirst.suits(weekly)  # `search` refuses rewards that change
    save_npz(model, tmp_path / "large.npz")
    ask = ["solve", "--model", str(tmp_path / "large.npz"), "--horizon", "4"]
    found = run(app, [*ask, "--gap", "0", "--seconds", "0.5", "--json"])
    report = json.loads(found.stdout)
    assert report["method"] == "search" and not report["converged"]
    assert "raise `--seconds`" in found.stderr
    strict = run(app, [*ask, "--gap", "0", "--seconds", "0.5", "--require-gap"])
    assert strict.exit_code == 1


def test_a_search_without_an_admissible_plan_says_so(tmp_path):
    save_npz(alternating(), tmp_path / "barred.npz")
    ask = ["solve", "--model", str(tmp_path / "barred.npz"), "--seconds", "1e-9"]
    found = run(app, [*ask, "--json"])
    report = json.loads(found.stdout)
    assert report["lower"] is None and report["value"] is None
    assert not report["converged"] and report["upper"] > 5
    said = " ".join(found.stderr.split())
    assert "no plan is found that takes admissible actions only" in said
    assert "raise `--seconds`" in said
    assert run(app, [*ask, "--require-gap"]).exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--setting", "pomdp", "--seconds", "3"], "needs `--model` and `--method"),
        (["--model", "FILE", "--seconds", "0"], "seconds = 0.0: must be above 0"),
        (["--model", "FILE", "--seconds", "-1"], "seconds = -1.0: must be above 0"),
    ],
)
def test_what_does_not_fit_is_said(file, options, words):
    found = run(app, ["solve", *(file if x == "FILE" else x for x in options)])
    assert found.exit_code == 2
    assert words in " ".join(found.stderr.split())


@pytest.mark.slow
def test_an_interrupt_reports_and_keeps_the_best_answer(tmp_path):
    model = random_pomdp(1, states=30, actions=4, symbols=6, first=False)
    save_npz(model, tmp_path / "own.npz")
    command = [sys.executable, "-m", "sdm.cli", "solve", "--model", "own.npz"]
    command += ["--gap", "0", "--seconds", "300", "--out", "kept", "--json"]
    work = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert work.stderr is not None
    for line in work.stderr:
        if "value between" in line:
            break
    time.sleep(0.5)
    work.send_signal(signal.SIGINT)
    out, said = work.communicate(timeout=60)
    assert work.returncode == 0
    assert "the search was interrupted after" in said
    report = json.loads(out)
    assert report["lower"] < report["upper"] and not report["converged"]
    assert float(load_solution(tmp_path / "kept").upper) == report["upper"]
    assert not Path(tmp_path / "kept.partial").exists()


def test_ctrl_c_while_playing_keeps_the_answer(file, tmp_path, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("sdm.tasks.simulation.simulate", interrupted)
    kept = str(tmp_path / "kept")
    ask = ["solve", "--model", file, "--out", kept, "--simulate", "5", "--json"]
    found = run(app, ask)
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["converged"] and "simulated_mean" not in report
    assert "interrupted while playing" in found.stderr
    assert float(load_solution(kept).lower) == report["lower"]


def test_what_cannot_be_simulated_is_refused_before_it_is_solved(tmp_path, monkeypatch):
    wide = IntervalMDP(
        jnp.full((2, 1, 2), 0.4),
        jnp.full((2, 1, 2), 0.6),
        jnp.ones((2, 1)),
        jnp.array([0.5, 0.5]),
        0.9,
    )
    save_npz(wide, tmp_path / "wide.npz")
    kept = tmp_path / "kept"
    ask = ["solve", "--model", str(tmp_path / "wide.npz"), "--horizon", "3"]
    assert run(app, [*ask, "--json"]).exit_code == 0
    found = run(app, [*ask, "--out", str(kept), "--simulate", "5"])
    assert found.exit_code == 2 and "IntervalMDP" in found.stderr, found.output
    assert not kept.exists()


def test_one_task_is_acted_in_step_by_step(file):
    """A batch of one, filtered by hand: hearing left twice opens the right door."""
    task = load_npz(file)
    solution = solve(task, horizon=3)
    plan, bayes = OneTask(solution), belief_filter(batch_of_one(task))
    state, belief = bayes.start(episodes=1), np.array([0.5, 0.5])
    heard = np.asarray(task.observation)[0]
    for t in range(2):
        action = plan.action(t, state.belief)
        assert action.tolist() == solution.action(t, state.belief[0])[None].tolist()
        assert action.tolist() == [[0]]
        state = bayes.update(state, action, jnp.array([[0]]))
        belief = belief * heard[:, 0] / (belief @ heard[:, 0])
        np.testing.assert_allclose(state.belief[0, 0], belief, rtol=1e-12)  # rounding
    assert plan.action(2, state.belief).tolist() == [[2]]
