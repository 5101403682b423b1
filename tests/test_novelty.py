"""Exploration with a bonus against walks by hand, and `sdm novelty`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from test_feedback import Scripted, by_number
from typer.testing import CliRunner

from sdm.cli import app
from sdm.feedback.judges.synthetic import SyntheticJudge
from sdm.feedback.novelty import Asked, explore
from sdm.feedback.novelty_study import NoveltyConfig, novelty_report
from sdm.feedback.subjects import captions_of
from sdm.tasks.models import MDP
from sdm.tasks.registry import load_family

FAMILY = load_family("darkroom:4", {"pays": "arrival"})
CAPTIONS = captions_of(FAMILY.spaces, "mdp")


def played(judge, *, horizon=30, bonus=0.1, seed=0):
    mdp = FAMILY.mdp(jnp.arange(1, 16, dtype=jnp.int32))  # every goal but the start
    return explore(judge, mdp, CAPTIONS, horizon=horizon, bonus=bonus, seed=seed)


def test_an_exact_judge_visits_a_new_cell_at_almost_every_step():
    found = played(SyntheticJudge(1.0))
    assert (found.found < 30).all()
    # 15 other cells: a walk that backtracks at most twice as often as it advances.
    assert found.found.max() < 22
    assert (found.hits, found.false_alarms) == (1.0, 0.0)
    # The agent knows the reward of the one move that it made: it moves away and back.
    assert (found.returns == (31 - found.found) // 2).all()


def test_random_exploration_finds_fewer_goals():
    exact = played(SyntheticJudge(1.0), horizon=20)
    randomly = played(SyntheticJudge(1.0), horizon=20, bonus=0.0)
    assert (randomly.found < 20).sum() < (exact.found < 20).sum()
    assert randomly.hits is None and randomly.false_alarms is None


def test_a_judge_that_always_errs_does_not_explore():
    wrong = played(SyntheticJudge(0.0), horizon=20)
    assert (wrong.hits, wrong.false_alarms) == (0.0, 1.0)
    exact = played(SyntheticJudge(1.0), horizon=20)
    assert wrong.visited.mean() < exact.visited.mean()


def test_the_agent_plans_a_way_through_cells_that_it_knows():
    """It walks to one end of a corridor, and straight back to the cells beyond."""
    cells, start = 12, 5
    here = np.arange(cells)
    move = np.zeros((1, cells, 2, cells))
    for action, step in enumerate((-1, 1)):
        move[0, here, action, np.clip(here + step, 0, cells - 1)] = 1
    corridor = MDP(
        jnp.asarray(move),
        jnp.zeros((1, cells, 2)),
        jnp.eye(cells)[start][None],
        jnp.asarray(1.0),
    )
    captions = [f"cell {i}" for i in range(cells)]
    for seed in range(3):
        found = explore(
            SyntheticJudge(1.0), corridor, captions, horizon=17, bonus=0.1, seed=seed
        )
        assert found.visited.tolist() == [cells]  # 5 + 11 or 6 + 11 steps


def test_a_judge_is_asked_once_with_the_captions_of_the_history():
    asked = []

    class Listening(Scripted):
        def is_new(self, caption, history, *, seed):
            asked.append((caption, tuple(history), seed))
            return caption not in history

    answers = Asked(Listening(by_number), ["a", "b", "c"], 5)
    assert (
        answers.is_new(1, [0]) and not answers.is_new(0, [0]) and answers.is_new(1, [0])
    )
    assert asked == [("b", ("a",), (5, 1, 1)), ("a", ("a",), (5, 1, 0))]
    assert answers.share_called_new(new=True) == 1.0
    assert answers.share_called_new(new=False) == 0.0


def test_the_same_seed_gives_the_same_episodes():
    first, again, other = (played(SyntheticJudge(0.8), seed=s) for s in (1, 1, 2))
    assert (first.found == again.found).all() and (first.found != other.found).any()


def test_a_wrong_bonus_is_named():
    with pytest.raises(ValueError, match="bonus = -1"):
        played(SyntheticJudge(1.0), bonus=-1.0)


def test_intervals_end_where_values_end():
    config = NoveltyConfig(FAMILY, horizon=20, tasks=2, bonus=0.1)
    rates = {"hits": None, "false_alarms": None}
    cells = [
        {"judge": "none", "seed": seed, "found_percent": found, "steps_mean": steps}
        | {"return_mean": float(seed), "states_mean": 5.0, **rates}
        for seed, found, steps in ((0, 0.0, 10.0), (1, 50.0, 19.0))
    ]
    found = novelty_report(config, cells)["judges"]["none"]
    # Student's t of two values: ± 12.7 halves of their difference.
    assert found["found_percent"]["mean"] == 25.0
    assert (found["found_percent"]["ci_low"], found["found_percent"]["ci_high"]) == (
        0.0,
        100.0,
    )
    assert (found["steps_mean"]["ci_low"], found["steps_mean"]["ci_high"]) == (0, 20)
    assert found["return_mean"]["ci_low"] == pytest.approx(0.5 - 12.7062 / 2, abs=1e-3)


WORDS = (
    "novelty --family darkroom:3 --pays arrival --horizon 8 --seeds 2 --json".split()
)


@pytest.mark.slow
def test_the_command_compares_judges_with_no_bonus(tmp_path):
    out = tmp_path / "out"
    words = [*WORDS, "--judge", "synthetic", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    judges = json.loads(result.stdout)["judges"]
    assert list(judges) == ["none", "synthetic:1"]
    means = {name: found["states_mean"]["mean"] for name, found in judges.items()}
    assert means["none"] < means["synthetic:1"]
    assert len(judges["none"]["steps_mean"]["seeds"]) == 2
    assert judges["synthetic:1"]["hits"]["mean"] == 1.0
    rows = [json.loads(row) for row in (out / "rows.jsonl").read_text().splitlines()]
    assert np.mean([r["steps_mean"] for r in rows if r["judge"] == "none"]) == (
        pytest.approx(judges["none"]["steps_mean"]["mean"])
    )
    assert CliRunner().invoke(app, words).exit_code == 2  # it exists already


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bonus", "0"), "bonus = 0.0: must be above 0"),
        (("--bonus", "inf"), "bonus = inf: must be a finite number"),
        (("--resume",), "`--resume` needs `--out`"),
        (("--judge", "nobody"), "judge: unknown"),
        (("--tasks", "0"), "tasks = 0"),
    ],
)
def test_the_command_names_wrong_input(words, message):
    result = CliRunner().invoke(app, [*WORDS, *words])
    assert result.exit_code == 2 and message in result.stderr


def test_a_family_of_one_state_has_nothing_new():
    with pytest.raises(ValueError, match="family `bandit`: has one state"):
        NoveltyConfig(load_family("bandit"), horizon=5, tasks=2, bonus=0.1)
