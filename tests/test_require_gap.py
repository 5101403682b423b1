"""A gap that is not reached is said, and `--require-gap` makes it an error."""

import json

import jax.numpy as jnp
import pytest
from random_models import random_apomdp, random_mdp
from typer.testing import CliRunner

from sdm.cli import app
from sdm.commands.solve_gap import missed_gap
from sdm.solvers_jax import EnergyFamily, save_npz

run = CliRunner().invoke
# No number of points makes rounding narrower than nothing.
NEVER = ["--gap", "0", "--atol", "0", "--points", "2", "--horizon", "3", "--json"]


@pytest.fixture
def energy(tmp_path):
    model = EnergyFamily(q=0.6).pomdp(jnp.asarray(0.7))
    save_npz(model, tmp_path / "energy.npz")
    return str(tmp_path / "energy.npz")


@pytest.mark.slow
def test_a_missed_gap_of_a_model_is_said_and_exits_if_required(energy):
    found = run(app, ["solve", "--model", energy, *NEVER])
    report = json.loads(found.stdout)
    assert found.exit_code == 0 and not report["converged"]
    assert "warning: the gap of 0 % is not reached: the bounds" in found.stderr
    stopped = run(app, ["solve", "--model", energy, *NEVER, "--require-gap"])
    assert stopped.exit_code == 1 and json.loads(stopped.stdout)["lower"]
    assert "error: the gap of 0 % is not reached" in stopped.stderr
    assert "hint: raise `--points`" in stopped.stderr


def test_a_reached_gap_passes(energy):
    options = ["--atol", "100", "--points", "2", "--horizon", "3", "--require-gap"]
    found = run(app, ["solve", "--model", energy, *options])
    assert found.exit_code == 0 and "gap of" not in found.stderr


@pytest.mark.slow
def test_missed_gaps_of_sampled_tasks_are_counted():
    ask = ["solve", "--setting", "pomdp", "--tasks", "2", *NEVER]
    stopped = run(app, [*ask, "--require-gap"])
    assert stopped.exit_code == 1 and json.loads(stopped.stdout)["missed_gap"] == 2
    assert "error: 2 of 2 tasks have not reached the gap of 0 %" in stopped.stderr
    assert "warning: 2 of 2 tasks" in run(app, ask).stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", [random_apomdp(0, 0.5), random_mdp(0)])
def test_no_effect_is_said_where_there_is_no_gap(model, tmp_path):
    save_npz(model, tmp_path / "own.npz")
    ask = ["solve", "--model", str(tmp_path / "own.npz"), "--horizon", "2"]
    ask += ["--points", "4"]
    found = run(app, [*ask, "--require-gap"])
    assert found.exit_code == 0
    assert "`--require-gap` has no effect for this kind of model" in found.stderr


def test_bounds_of_zero_have_no_relative_width():
    report = {"converged": False, "lower": 0.0, "upper": 0.0}
    assert missed_gap(report, None).endswith("the bounds 0 and 0 are apart")
    assert missed_gap({"missed_gap": None}, 0.01) == ""
