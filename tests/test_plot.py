"""Pictures are written, whole, and only of what can be drawn."""

import json
import struct
import sys

import pytest
from random_models import random_apomdp, random_mdp, tiger
from typer.testing import CliRunner

from sdm.cli import app
from sdm.solvers_jax import RobustMDP, save_npz, save_pomdp, solve
from sdm.solvers_jax.plot import save_picture

run = CliRunner().invoke


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["mdp", "pomdp", pytest.param("apomdp", marks=pytest.mark.slow)]
)
def test_every_kind_of_solution_has_a_picture(kind, tmp_path):
    options = {"pomdp": {"method": "exact"}, "apomdp": {"points": 8}}.get(kind, {})
    model = {
        "mdp": lambda: random_mdp(1),
        "pomdp": tiger,
        "apomdp": lambda: random_apomdp(1, 0.5),
    }[kind]()
    solution = solve(model, horizon=3, **options)
    names = {"states": list("xyz"), "actions": ["up", "down", "stay"]}
    save_picture(solution, str(tmp_path / "a.png"), title="title", **names)
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG") and struct.unpack(">II", data[16:24])[0] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_the_rounds_of_a_solution_close_in_on_its_bounds():
    found = solve(random_apomdp(3, 0.0), horizon=3, points=16)
    points, rounds = found.rounds.points, found.rounds
    assert len(points) == 3 and points[2] - points[1] == 8
    assert (rounds.upper >= rounds.value).all()
    assert (rounds.value[1:] >= rounds.value[:-1]).all()
    assert (rounds.upper[1:] <= rounds.upper[:-1]).all()


def test_a_picture_of_one_task_only(tmp_path):
    with pytest.raises(ValueError, match=r"one task, found a batch \(4,\)"):
        save_picture(solve(random_mdp(1, 4), horizon=2), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"must end in \.png"):
        save_picture(solve(random_mdp(1), horizon=2), tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_solve_draws_what_it_solved_and_replaces_nothing(tmp_path):
    picture = tmp_path / "tiger.pdf"
    save_pomdp(tiger(), tmp_path / "tiger.POMDP")
    own = ["solve", "--model", str(tmp_path / "tiger.POMDP"), "--horizon", "2"]
    own += ["--method", "exact"]
    result = run(app, [*own, "--plot", str(picture), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["plot"] == str(picture)
    assert picture.read_bytes().startswith(b"%PDF")
    again = run(app, ["solve", "--tasks", "2", "--plot", str(picture)])
    assert again.exit_code == 2 and "exists already" in again.stderr
    replaced = run(app, ["solve", "--tasks=2", f"--plot={picture}", "--overwrite"])
    assert replaced.exit_code == 0, replaced.output
    unknown = run(app, ["solve", "--tasks", "2", "--plot", str(tmp_path / "a.txt")])
    assert unknown.exit_code == 2 and "a.txt`: must end in .png" in unknown.stderr


def test_a_robust_mdp_is_drawn_like_an_mdp(tmp_path):
    model = random_apomdp(1, 0.5)
    robust = RobustMDP(
        model.transition, model.reward, model.initial, model.alpha, model.discount
    )
    save_npz(robust, tmp_path / "own.npz")
    own = ["solve", "--model", str(tmp_path / "own.npz"), "--horizon", "3"]
    result = run(app, [*own, "--plot", str(tmp_path / "own.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "own.png").is_file()


def test_the_plot_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(app, ["solve", "--tasks", "2", "--plot", "a.png"])
    assert result.exit_code == 1 and "sdm-llm[plot]" in result.stderr
