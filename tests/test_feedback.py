"""Judges, comparisons, reward models and `sdm feedback`."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sdm.cli import app
from sdm.commands.feedback import _percent
from sdm.feedback import judge as judge_module
from sdm.feedback.comparisons import Preferences, ask, choose_pairs, hold_out
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.identifiability import DegeneratePreferences, pairs_identify
from sdm.feedback.judge import (
    FIRST,
    OUTSIDE,
    SECOND,
    TIE,
    Items,
    Judge,
    JudgeError,
    judges,
    parse_judge,
)
from sdm.feedback.judges.synthetic import SyntheticJudge
from sdm.feedback.reward_model import RewardConfig, judge_accuracy, learn_reward
from sdm.feedback.study import (
    learned_rewards,
    run_cell,
    solve_for,
)
from sdm.feedback.subjects import (
    GOAL,
    captions_of,
    goal_of,
    segments_as_items,
    states_as_items,
)
from sdm.storage.files import StorageError
from sdm.tasks.registry import load_family

NAMES = [f"state {i}" for i in range(8)]
VALUES = np.array([0.0, 1.0, 1.0, 4.0, 2.0, 7.0, 5.0, 3.0])


class Scripted:
    """A judge that answers as a function of the two captions says."""

    name, reads_task, needs_torch, together = "scripted", False, False, 3

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def compare(self, items, pairs, *, seed):  # noqa: D102
        captions = [[items.captions[i] for i in pair] for pair in pairs]
        self.asked += captions
        return np.array([self.answer(*pair) for pair in captions], int)

    def is_new(self, caption, history, *, seed):  # noqa: D102
        return caption not in history


def by_number(first, second):
    a, b = (int(text.split()[-1]) for text in (first, second))
    return TIE if a == b else FIRST if a > b else SECOND


def test_a_synthetic_judge_has_its_accuracy():
    pairs = np.random.default_rng(0).integers(0, 8, (20_000, 2))
    lead = VALUES[pairs[:, 0]] - VALUES[pairs[:, 1]]
    items = Items(NAMES, VALUES)
    for accuracy in (1.0, 0.8, 0.5, 0.0):
        answer = SyntheticJudge(accuracy).compare(items, pairs, seed=(1,))
        assert (answer[lead == 0] == TIE).all()
        right = answer[lead != 0] == np.sign(lead[lead != 0])
        # Four standard errors of a share of 17,000 answers.
        assert abs(right.mean() - accuracy) <= 4 * 0.5 / np.sqrt(right.size)


def test_better_synthetic_judges_err_in_a_subset():
    pairs = choose_pairs(8, 100, seed=(0,))
    items = Items(NAMES, VALUES)
    wrong = [
        SyntheticJudge(accuracy).compare(items, pairs, seed=(1,))
        != SyntheticJudge(1.0).compare(items, pairs, seed=(1,))
        for accuracy in (0.9, 0.6)
    ]
    assert (wrong[0] <= wrong[1]).all() and wrong[1].sum() > wrong[0].sum()


def test_judges_are_found_by_name():
    assert parse_judge("synthetic:0.75") == SyntheticJudge(0.75)
    assert parse_judge("synthetic") == SyntheticJudge(1.0)
    for name, make in judges().items():
        assert callable(make) and isinstance(name, str)
    assert isinstance(SyntheticJudge(1.0), Judge) and isinstance(
        Scripted(by_number), Judge
    )
    for text, message in (
        ("synthetc", "did you mean `synthetic`"),
        ("synthetic:1.5", "accuracy = 1.5"),
        ("synthetic:high", "must be a number, found `high`"),
    ):
        with pytest.raises(JudgeError) as error:
            parse_judge(text)
        assert message in f"{error.value} {error.value.hint}"


def test_another_package_registers_a_judge(monkeypatch):
    monkeypatch.setattr(judge_module, "_registered", {})
    judges.cache_clear()
    judge_module.register_judge("third")(lambda text: Scripted(by_number))
    try:
        assert parse_judge("third:anything").name == "scripted"
    finally:
        judges.cache_clear()


@pytest.mark.parametrize(("items", "most"), [(8, 28), (8, 100), (30, 40), (50, 400)])
def test_pairs_are_different_and_connected(items, most):
    pairs = choose_pairs(items, most, seed=(3,))
    assert len(pairs) == min(most, items * (items - 1) // 2)
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    found = pairs_identify(pairs, np.full(len(pairs), 0.5), items)
    assert found.components == 1
    assert 0.2 < (pairs[:, 0] < pairs[:, 1]).mean() < 0.8  # both directions occur
    assert (choose_pairs(items, most, seed=(3,)) == pairs).all()


def test_held_out_comparisons_leave_a_connected_graph():
    pairs = choose_pairs(30, 60, seed=(0,))
    found = Preferences(pairs, np.full(60, 0.5), 60, 0)
    out = hold_out(found, 30, 0.5, seed=(1,))
    assert out.sum() == 30
    assert pairs_identify(pairs[~out], found.outcome[~out], 30).components == 1
    cycle = Preferences(choose_pairs(30, 30, seed=(0,)), np.full(30, 0.5), 30, 0)
    assert hold_out(cycle, 30, 0.5, seed=(1,)).sum() == 1  # a tree has one edge less


def test_identical_captions_are_ties_and_never_asked():
    judge = Scripted(by_number)
    items = Items(["state 0", "state 1", "state 1"], np.arange(3.0))
    found = ask(judge, items, np.array([[0, 1], [2, 1], [2, 0]]), seed=(0,))
    assert found.outcome.tolist() == [0.0, 0.5, 1.0]
    assert judge.asked == [["state 0", "state 1"], ["state 1", "state 0"]]
    assert (found.asked, found.outside) == (2, 0)


def test_answers_outside_of_the_choices_are_dropped_and_counted():
    strange = {("state 0", "state 1"): 7, ("state 2", "state 0"): OUTSIDE}
    judge = Scripted(lambda a, b: strange.get((a, b), by_number(a, b)))
    pairs = np.array([[0, 1], [1, 2], [2, 0], [3, 0]])
    items = Items(NAMES, VALUES)
    found = ask(judge, items, pairs, seed=(0,))
    assert found.pairs.tolist() == [[1, 2], [3, 0]]
    assert found.outcome.tolist() == [0.0, 1.0]
    assert (found.asked, found.outside) == (4, 2)
    with pytest.raises(JudgeError, match=r"2 of 4 answers are outside .* such as 7"):
        ask(judge, items, pairs, seed=(0,), most_outside=0.4)


def test_a_judge_must_answer_every_comparison():
    judge = Scripted(by_number)
    judge.compare = lambda items, pairs, seed: np.array([FIRST])
    with pytest.raises(JudgeError, match="must answer 3 comparisons"):
        ask(judge, Items(NAMES, VALUES), choose_pairs(8, 9, seed=(0,)), seed=(0,))


def test_answers_are_stored_and_not_asked_again(tmp_path):
    pairs, items = choose_pairs(8, 8, seed=(0,)), Items(NAMES, VALUES)
    count = 0

    def stops(first, second):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return by_number(first, second)

    with pytest.raises(KeyboardInterrupt):
        ask(Scripted(stops), items, pairs, seed=(0,), kept=tmp_path / "task")
    second = Scripted(by_number)
    found = ask(second, items, pairs, seed=(0,), kept=tmp_path / "task")
    assert len(second.asked) == 5  # the first three are stored
    whole = ask(Scripted(by_number), items, pairs, seed=(0,))
    assert (found.outcome == whole.outcome).all()


def test_a_perfect_judge_orders_states():
    subjects = states_as_items(NAMES, VALUES, "")
    found = learn_reward(SyntheticJudge(1.0), subjects, RewardConfig(), seed=(0,))
    order = np.argsort(VALUES, kind="stable")
    assert (
        np.diff(found.scores[order])[VALUES[order][1:] > VALUES[order][:-1]] > 0
    ).all()
    assert found.scores[1] == pytest.approx(found.scores[2])  # equal values
    assert found.report["judge_accuracy"] == 1.0
    assert found.report["separable"] and found.report["converged"]
    assert abs(found.scores.sum()) < 1e-6


def test_judge_accuracy_counts_ties_as_half_right():
    pairs = np.array([[0, 3], [3, 0], [0, 3], [1, 2]])
    found = Preferences(pairs, np.array([0.0, 0.0, 0.5, 1.0]), 4, 0)
    assert judge_accuracy(found, VALUES) == pytest.approx((1 + 0 + 0.5) / 3)
    assert np.isnan(judge_accuracy(found, np.zeros(8)))


@pytest.mark.parametrize(
    ("captions", "answer", "message"),
    [
        (NAMES, lambda a, b: TIE, "every comparison is a tie"),
        (["one"], by_number, "at least 2 different items"),
        (["same"] * 4, by_number, "every comparison is a tie"),
    ],
)
def test_degenerate_preferences_are_not_trained_on(captions, answer, message):
    subjects = states_as_items(captions, np.arange(float(len(captions))), "")
    with pytest.raises(DegeneratePreferences, match=message):
        learn_reward(Scripted(answer), subjects, RewardConfig(), seed=(0,))


def test_too_few_comparisons_are_not_connected():
    subjects = states_as_items(NAMES, VALUES, "")
    config = RewardConfig(comparisons=5)
    with pytest.raises(DegeneratePreferences, match="not connected") as error:
        learn_reward(Scripted(by_number), subjects, config, seed=(0,))
    assert "--comparisons" in error.value.hint


def test_captions_use_the_names_of_a_family():
    assert captions_of(load_family("darkroom:2").spaces, "mdp") == (
        *("row 0 column 0", "row 0 column 1"),
        *("row 1 column 0", "row 1 column 1"),
    )


def test_the_goal_is_the_given_one_or_that_of_the_family():
    energy, garnet = load_family("energy"), load_family("garnet")
    assert "energy" in goal_of(energy, "")
    assert goal_of(energy, "Rest.") == "Rest."
    assert goal_of(garnet, "") == GOAL


def study(family="energy", **options):
    options = {"horizon": 4, "tasks": 3, "reward": RewardConfig(), **options}
    return FeedbackConfig(load_family(family), **options)


def test_segments_are_windows_of_episodes_with_their_rewards():
    config = study()
    solved = solve_for(config, 0)
    found = segments_as_items(
        config.family, solved.mdp, 1, length=2, horizon=4, goal="", seed=0
    )
    reward = np.asarray(solved.mdp.reward)[1]
    names = ["charge", "charge too", "work"]
    for text, value, visits in zip(
        found.items.captions, found.items.value, found.visits.toarray(), strict=True
    ):
        words = text.replace(",", "").replace(".", "").replace("energy ", "")
        words = words.replace("charge too", "charge_too").split()
        states = [int(x) for x in words[::2]]
        actions = [names.index(x.replace("_", " ")) for x in words[1::2]]
        assert len(states) == 3 and len(actions) == 2
        assert value == pytest.approx(
            sum(reward[s, a] for s, a in zip(states, actions, strict=False))
        )
        assert visits.tolist() == np.bincount(states[1:], minlength=10).tolist()
    with pytest.raises(ValueError, match="segment = 4"):
        segments_as_items(
            config.family, solved.mdp, 1, length=4, horizon=4, goal="", seed=0
        )


def test_preferences_between_segments_find_the_rewarded_state():
    """Where the reward is that of the next state, its score is the highest."""
    family = load_family("darkroom:3", {"pays": "arrival"})
    config = FeedbackConfig(family, 12, 2, RewardConfig(segment=3, comparisons=400))
    solved = solve_for(config, 0)
    judge = SyntheticJudge(1.0)
    models, unusable = learned_rewards(judge, config, solved, seed=0)
    paid = np.asarray(solved.mdp.reward)[:, :, 0].argmax(-1)  # to stay pays on the goal
    assert [model.scores.argmax() for model in models] == paid.tolist()
    assert not unusable
    short = dataclasses.replace(config, reward=RewardConfig(7, segment=3))
    with pytest.raises(DegeneratePreferences, match=r"no comparison depends \(7 comp"):
        learned_rewards(judge, short, solve_for(short, 0), seed=0)
    assert all(model.report["judge_accuracy"] == 1.0 for model in models)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["energy", "darkroom:4"])
def test_a_perfect_judge_ranks_states_as_their_values(family):
    found = run_cell(SyntheticJudge(1.0), study(family, horizon=8), 1)
    assert found["rank_correlation"] >= 0.99
    exact = [row for row in found["rows"] if row["use"] in ("none", "potential")]
    # All decisions are seen, so the plan is optimal: the gap is rounding.
    assert len(exact) == 4 and all(abs(row["gap_percent"]) < 1e-9 for row in exact)


def test_an_added_reward_costs_more_the_larger_it_is():
    """Even if its order is perfect: the trap that potentials avoid."""
    config = study(horizon=10, tasks=20, uses=("added",), weights=(0.05, 0.2, 1.0))
    gaps = [
        row["gap_percent"] for row in run_cell(SyntheticJudge(1.0), config, 0)["rows"]
    ]
    assert gaps[0] == pytest.approx(0.0, abs=1e-9)
    assert 0.05 < gaps[1] < gaps[2] < gaps[3]


def test_a_judge_that_ignores_the_task_is_asked_once():
    judge = Scripted(by_number)
    found = run_cell(judge, study(tasks=5, reward=RewardConfig(held_out=0.0)), 0)
    assert found["asked"] == len(judge.asked) == 45
    assert found["rank_correlation"] == pytest.approx(1.0)  # V* grows with energy


def test_a_study_names_wrong_options():
    for options, message in (
        ({"weights": (-1.0,)}, "weight = -1"),
        ({"uses": ("bonus",)}, "choose from potential"),
        ({"lookaheads": (-2,)}, "lookahead = -2"),
        ({"tasks": 0}, "tasks = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            study(**options)
    for options, message in (
        ({"held_out": 1.0}, "held_out = 1.0"),
        ({"penalty": -1.0}, "penalty = -1.0"),
        ({"comparisons": 0}, "comparisons = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            RewardConfig(**options)


SMALL = "--tasks 4 --horizon 4 --seeds 2 --weight 0.1 --json".split()


def feedback(*words):
    return CliRunner().invoke(app, ["feedback", *SMALL, *map(str, words)])


@pytest.mark.slow
def test_the_command_reports_and_writes_a_folder(tmp_path):
    out = tmp_path / "out"
    words = ("--judge", "synthetic:0.7", "--judge", "synthetic", "--out", out)
    result = feedback(*words)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert {"accuracy", "rank_correlation", "gap_by_weight"} <= report.keys()
    assert list(report["judges"]) == ["synthetic:0.7", "synthetic:1"]
    best = report["judges"]["synthetic:1"]
    assert best["judge_accuracy"] == 1.0 and best["rank_correlation"] >= 0.99
    added = next(row for row in best["gaps"] if row["use"] == "added")
    assert len(added["seeds"]) == 2
    assert added["ci_low"] < added["gap_percent"] < added["ci_high"]
    assert added["gap_percent"] == pytest.approx(np.mean(added["seeds"]))
    files = {path.name for path in out.iterdir()}
    assert files == {
        *("README.md", "config.json", "env.json", "plan.json"),
        *("report.json", "rows.jsonl"),
    }
    stored = json.loads((out / "report.json").read_text())
    assert stored["judges"] == report["judges"]
    assert "synthetic:0.7" in (out / "README.md").read_text()
    again = feedback(*words)
    assert again.exit_code == 2 and "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--judge", "oracle"), "judge: unknown"),
        (("--judge", "synthetic", "--judge", "synthetic:1"), "judges: must differ"),
        (("--resume",), "`--resume` needs `--out`"),
        (("--comparisons", "5"), "not connected"),
        (("--segment", "4"), "segment = 4"),
        (("--penalty", "0"), "separable"),
    ],
)
def test_the_command_names_wrong_input(words, message):
    result = feedback(*words)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(tmp_path):
    import slow_judge  # registers it in this process, too

    out, whole = tmp_path / "out", tmp_path / "whole"
    code = "import slow_judge; from sdm.cli import main; main()"
    words = ["feedback", *SMALL, "--judge", "slow", "--out", str(out)]
    places = [str(Path(slow_judge.__file__).parent), os.environ.get("PYTHONPATH", "")]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"SLOW_JUDGE": "0.5", "PYTHONPATH": os.pathsep.join(places)},
    )
    stored = tmp_path / "out.partial" / "cells" / "0-0"
    limit = time.monotonic() + 100
    while len(list(stored.glob("*.npy"))) < 2:
        assert time.monotonic() < limit and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    done = feedback("--judge", "slow", "--out", out, "--resume")
    fresh = feedback("--judge", "slow", "--out", whole)
    assert (done.exit_code, fresh.exit_code) == (0, 0), done.stderr
    asked = [result.stderr.count("asked 5") for result in (done, fresh)]
    assert asked[0] <= asked[1] - 2
    assert (out / "rows.jsonl").read_text() == (whole / "rows.jsonl").read_text()
    assert not Path(f"{out}.partial").exists()


def test_a_run_with_other_options_is_not_resumed(tmp_path):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "plan.json").write_text(json.dumps({"made_by": "sdm", "seeds": [5]}))
    (partial / "kept").write_text("")
    result = feedback("--out", tmp_path / "out", "--resume")
    assert result.exit_code == 2 and "other options" in result.stderr
    assert os.environ.get("SDM_DEBUG") != "1" and issubclass(StorageError, ValueError)


@pytest.mark.slow  # solves and plays each benchmark twice
def test_policies_act_in_the_same_tasks_as_the_plans():
    words = ("--policy", "oracle", "--policy", "mean-plan", "--judge", "synthetic")
    report = json.loads(feedback(*words).stdout)
    assert report["policies"]["oracle"]["gap_percent"] == pytest.approx(0, abs=1e-9)
    one = ["eval", *"--policy mean-plan --tasks 4 --horizon 4 --json".split()]
    one += ["--support", "0"]
    gaps = []
    for seed in ("0", "1"):
        found = json.loads(CliRunner().invoke(app, [*one, "--seed", seed]).stdout)
        gaps.append(found["policies"]["mean-plan"]["exact_gap_percent"])
    assert report["policies"]["mean-plan"]["seeds"] == pytest.approx(gaps)


def test_a_judge_reads_the_demonstrations_of_each_task():
    judge, shown = Scripted(by_number), []
    compare = judge.compare

    def listen(items, pairs, *, seed):
        shown.append(items.demonstrations)
        return compare(items, pairs, seed=seed)

    judge.compare = listen
    found = run_cell(judge, study(reward=RewardConfig(support=2)), 0)
    assert found["asked"] == 3 * 45  # each task is judged
    assert len(set(shown)) == 3 and all(len(texts) == 2 for texts in shown)
    assert all(text.startswith("energy ") for texts in shown for text in texts)


PLAN = "--use added --weight 1 --data".split()


@pytest.mark.slow
def test_a_dataset_holds_the_episodes_of_the_plan(tmp_path):
    from sdm.data.shards import read_manifest, read_shards

    one = "feedback --tasks 4 --horizon 4 --trajectories 3 --json".split()
    result = CliRunner().invoke(app, [*one, *PLAN, str(tmp_path / "plan")])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    table = read_shards(tmp_path / "plan")
    assert report["tasks"] == read_manifest(tmp_path / "plan")["tasks"] == 4
    assert table.num_rows == report["episodes"] == 12
    exact = [
        *one,
        *"--use potential --weight 1 --data".split(),
        str(tmp_path / "exact"),
    ]
    assert CliRunner().invoke(app, exact).exit_code == 0
    solve = "solve --tasks 4 --horizon 4 --trajectories 3 --out".split()
    assert CliRunner().invoke(app, [*solve, str(tmp_path / "oracle")]).exit_code == 0
    # A potential leaves the oracle's plan, in the same tasks with the same numbers.
    oracle, same = read_shards(tmp_path / "oracle"), read_shards(tmp_path / "exact")
    for name in ("task", "observation", "action", "reward", "optimal_action"):
        assert same[name].to_pylist() == oracle[name].to_pylist(), name
    for name in ("value", "oracle_value", "random_value"):
        assert np.allclose(same[name], oracle[name])
    assert table["parameters"].to_pylist() == oracle["parameters"].to_pylist()
    # The added reward costs something, and the episodes say how much.
    lost = 1 - np.array(table["oracle_value"]) / np.array(table["value"])
    assert (
        report["plan_gap_percent"] == pytest.approx(100 * lost.mean())
        and lost.mean() > 0
    )


def test_a_dataset_is_of_one_plan(tmp_path):
    for words, message in (
        (("--judge", "synthetic", "--judge", "synthetic:0.5"), "is of one judge"),
        (("--weight", "0.5"), "uses: a dataset is of one plan, found 2"),
        (("--use", "added", "--weight", "0.5"), "weights: a dataset is of one plan"),
    ):
        result = feedback(*words, "--data", tmp_path / "data")
        assert result.exit_code == 2 and message in result.stderr


def test_a_gap_that_rounds_to_zero_has_no_sign():
    assert [_percent(x) for x in (-4e-4, 0.0, -6e-4)] == ["0.000", "0.000", "-0.001"]
