"""The hook for studies, verdicts on claims, and the studies of AI feedback."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from experiment_support import Quiet

from sdm.commands.experiment_progress import rows_table
from sdm.experiments import study as study_module
from sdm.experiments.catalogue import PUBLISHED, experiments, read
from sdm.experiments.claims import RULE, case, claim_text, judged
from sdm.experiments.feedback_claims import groups, sentences
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import trains
from sdm.experiments.rows import read_rows, rows_file
from sdm.experiments.runner import run_experiment
from sdm.experiments.sections import section_of
from sdm.experiments.spec import Cell, ExperimentError
from sdm.experiments.studies.feedback import config_of
from sdm.experiments.study import Study, needs_torch, register_study, studies
from sdm.experiments.text_table import Line, Table
from sdm.feedback.judge import parse_judge
from sdm.feedback.run import policy_cell
from sdm.feedback.study import run_cell as run_judge

ABOUT = 'title = "a"\nquestion = "?"\n'


class Sum:
    """A study that adds its options."""

    name, label, lists, seeds = "sum", "adder", frozenset({"terms"}), ()

    def condition(self, options):  # noqa: D102
        return f"times {options['times']}"

    def needs_torch(self, options):  # noqa: D102
        return options["times"] > 1

    def run(self, cell, work, step):  # noqa: D102
        if cell.learn["times"] < 0:
            raise ValueError("times: must be positive")
        step("adding", 1, 2)
        work.mkdir(parents=True)
        (work / "part").write_text("1")
        return {"sum": cell.learn["times"] * sum(cell.learn["terms"]) + cell.seed}

    def result(self, row):  # noqa: D102
        return str(row["sum"])

    def table(self, rows):  # noqa: D102
        return Table(["sum"], 0, [Line([str(row["sum"])], True) for row in rows])

    def figure(self, rows):  # noqa: D102
        import altair as alt

        return alt.Chart(alt.Data(values=[{"y": 1}])).mark_point().encode(y="y:Q")

    def conclusion(self, rows):  # noqa: D102
        return [f"the sums are {sorted(row['sum'] for row in rows)}"]


@pytest.fixture
def adder(monkeypatch):
    """The study, as if another package had registered it."""
    monkeypatch.setattr(study_module, "_registered", {})
    studies.cache_clear()
    register_study(Sum)
    yield
    studies.cache_clear()


def configured(folder, text, name="mine"):
    file = Path(folder) / f"{name}.toml"
    file.write_text(ABOUT + text)
    return read(file)


def test_the_package_has_its_studies():
    assert {"theory", "feedback", "forgetting"} <= set(studies())
    for name, each in studies().items():
        assert isinstance(each, Study) and each.name == name
    # Published rows of the check keep their key.
    (cell,) = cells(experiments()["theory"], "laptop")
    assert (cell.key, cell.seed, trains(cell)) == ("23a323a42906", 0, False)
    assert not needs_torch(cell)


@pytest.mark.parametrize(
    ("learner", "by_torch"),
    [
        ("untrained", False),
        ("dpt", False),
        ("cql", False),
        ("icl", True),
        ("finetune", True),
        ("selftrain", True),
    ],
)
def test_language_models_need_torch_however_they_are_trained(learner, by_torch):
    (cell,) = cells(experiments()["theory"], "laptop")
    cell = dataclasses.replace(cell, study="", learner=learner)
    assert needs_torch(cell) == by_torch


def test_a_study_of_another_package_is_an_experiment(adder, tmp_path):
    text = "[[cells]]\nsum = { times = [2, 3], terms = [[1, 2], [4]] }\nseeds = [5, 6]"
    mine = configured(tmp_path, text)
    found = cells(mine, "laptop")
    chosen = [(c.seed, c.learn["times"], c.learn["terms"]) for c in found]
    assert chosen == [(s, n, x) for s in (5, 6) for n in (2, 3) for x in ([1, 2], [4])]
    assert {c.policy for c in found} == {"adder"} and found[0].condition == "times 2"
    assert needs_torch(found[0]) and not trains(found[0])
    assert len(cells(mine, "smoke")) == 1  # the first of every list
    watcher = Quiet()
    outcome = run_experiment(mine, "laptop", tmp_path / "results", watcher)
    assert [row["sum"] for row in outcome.rows] == [11, 13, 14, 17, 12, 14, 15, 18]
    assert {share for _, name, share, _ in watcher.steps if name == "adding"} == {0.5}
    assert not list((tmp_path / "results/work").glob("study-*"))
    kept = read_rows(rows_file(tmp_path / "results", "mine", "laptop"))
    assert kept == outcome.rows and kept[0]["training"] is None
    section = section_of(mine, "laptop", tmp_path / "results")
    assert section.conclusion == ["the sums are [11, 12, 13, 14, 14, 15, 17, 18]"]
    assert section.done == section.wanted == len(section.table.lines) == 8
    again = run_experiment(
        mine, "laptop", tmp_path / "results", Quiet(), resume=True, seed=6
    )
    assert again.new == 0


def test_a_failed_cell_of_a_study_keeps_its_folder(adder, tmp_path):
    mine = configured(tmp_path, "[[cells]]\nsum = { times = -1, terms = [1] }")
    (cell, *_) = cells(mine, "laptop")
    assert cell.learn["terms"] == [1], "a list that is no axis"
    part = tmp_path / "results/work" / f"study-{cell.key}" / "part"
    part.parent.mkdir(parents=True)
    part.write_text("0")
    outcome = run_experiment(mine, "laptop", tmp_path / "results", Quiet(), seed=0)
    assert [why for _, why in outcome.failed] == ["times: must be positive"]
    assert part.exists(), "for the next run"
    run_experiment(mine, "laptop", tmp_path / "results", Quiet(), overwrite=True)
    assert not part.exists(), "a run from the start uses no earlier part"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[cells]]\nsum = { times = 1 }\n"
            '[[cells]]\ntest = { kind = "mdp" }\npolicies = ["ce"]',
            "must be of one study or of policies, found policies, sum",
        ),
        ('[[cells]]\nsum = { times = 1 }\npolicies = ["ce"]', "unknown key `policies`"),
        ("[[cells]]\nsom = { times = 1 }", "`kind` in `test`"),
        ('[[cells]]\ntest = { kind = "mdp" }\npolicies = ["ce"]', "`x` at the top"),
        (
            '[[cells]]\ntest = { kind = "mdp" }\npolicies = ["ce"]\nstudy = "sum"',
            "unknown key `study`",
        ),
    ],
)
def test_wrong_configurations_are_named(adder, tmp_path, text, message):
    with pytest.raises(ExperimentError, match=message):
        configured(tmp_path, text)


def test_verdicts_are_those_of_the_interval_over_seeds():
    # Student's t with 2 degrees of freedom: 4.30265 times s/√3 with s = 1.
    one = case("a", [1.0, 2.0, 3.0])
    assert one.high - one.mean == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
    assert one.verdict(0.0) == "undecided"
    assert case("a", [1.9, 2.0, 2.1]).verdict(0.0) == "confirmed"
    assert case("a", [1.9, 2.0, 2.1]).verdict(1.99) == "undecided"
    assert case("a", [-1.9, -2.0, -2.1]).verdict(0.0) == "refuted"
    assert case("a", [0.0, 0.0]).verdict(0.0) == "refuted"
    assert case("a", [-0.1, 0.0, 0.1]).verdict(0.0) == "undecided"
    assert case("a", [5.0]).verdict(0.0) == "undecided"
    assert (
        judged([case("a", [5.0])], "points") == "undecided (a: +5.00 points, one seed)"
    )
    sure, not_sure = [2.0, 2.0], [1.0, 3.0]
    assert judged([case("a", sure), case("b", not_sure)], "%") == (
        "confirmed in 1 of 2 cases (a: +2.00 %, +2.00 to +2.00), undecided in 1 of 2 "
        "cases (b: +2.00 %, -10.71 to +14.71)"
    )
    many = [case(str(i), [float(i), float(i)]) for i in range(1, 5)]
    assert judged(many, "%") == "confirmed in 4 of 4 cases (+1.00 to +4.00 %)"
    assert claim_text("It does", {"x": [], "y": []}, "%") == []
    text = claim_text("It does", {"x": many, "y": []}, "%")
    assert text == ["It does: in x, confirmed in 4 of 4 cases (+1.00 to +4.00 %)."]


SMALL = {
    "family": "energy",
    "horizon": 4,
    "tasks": 3,
    "weights": [0.5],
    "lookaheads": [0, 2],
    "comparisons": 60,
}


def feedback_cell(options, seed=0):
    about = {"experiment": "a", "profile": "laptop", "policy": "judge"}
    about |= {"learner": "feedback", "seed": seed, "study": "s"}
    return Cell(**about, test={}, data={}, learn=options)


@pytest.mark.slow
def test_a_row_of_the_study_is_the_result_of_its_judge(tmp_path):
    cell = feedback_cell({**SMALL, "judge": "synthetic:0.8"}, seed=3)
    config = config_of(cell.learn)
    assert (config.horizon, config.tasks, config.weights) == (4, 3, (0.5,))
    assert config.reward.comparisons == 60 and config.lookaheads == (0, 2)
    row = studies()["feedback"].run(cell, tmp_path / "work", lambda *step: None)
    alone = run_judge(parse_judge("synthetic:0.8"), config, 3)
    assert row == {"feedback": json.loads(json.dumps(alone))}
    assert not studies()["feedback"].needs_torch(cell.learn)
    assert studies()["feedback"].needs_torch({"judge": "model:tiny"})
    shown = studies()["feedback"].condition(cell.learn)
    assert shown == "energy, T = 4, comparisons 60, synthetic:0.8"


@pytest.mark.slow
def test_a_policy_acts_in_the_tasks_of_its_judge(tmp_path):
    options = {**SMALL, "judge": "synthetic:0.8", "support": 2, "policy": "random"}
    cell = feedback_cell(options, seed=3)
    row = studies()["feedback"].run(cell, tmp_path, lambda *step: None)
    alone = policy_cell("random", config_of(cell.learn), 3)
    assert row["feedback"].pop("direct") == alone and alone["gap_percent"] > 10
    judge = run_judge(parse_judge("synthetic:0.8"), config_of(cell.learn), 3)
    assert row == {"feedback": json.loads(json.dumps(judge))}
    shown = studies()["feedback"].condition(cell.learn)
    assert shown == "energy, T = 4, comparisons 60, support 2, synthetic:0.8"


def test_the_options_of_a_family_reach_it():
    options = {"family": "garnet", "judge": "synthetic:1", "states": 7}
    config = config_of(options)
    assert config.family.states == 7
    assert config.horizon == config.family.defaults.horizon
    assert config.tasks == config.family.defaults.test_tasks


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("feedback", {"judge": "synthetic:1", "color": 1}, "unknown option `color`"),
        ("feedback", {}, "option `judge`: expected a text, found None"),
        ("feedback", {"judge": "oracle"}, "judge: unknown, found `oracle`"),
        ("feedback", {"judge": "synthetic:1", "tasks": 0}, "tasks"),
        ("forgetting", {}, "option `base`: expected a text, found None"),
        (
            "forgetting",
            {"base": "tiny", "tuning": "judge", "weights": "full"},
            "option `tuning`: expected a text, found 'judge'",
        ),
        (
            "forgetting",
            {"base": "tiny", "tuning": "policy", "weights": "full", "lr": 1},
            "unknown option `lr`",
        ),
    ],
)
def test_wrong_options_are_named(tmp_path, study, options, message):
    cell = dataclasses.replace(feedback_cell(options), learner=study)
    with pytest.raises(ValueError, match=message):
        studies()[study].run(cell, tmp_path, lambda *step: None)


def feedback_rows(added, near=lambda accuracy: 3.0, potential=0.0, seeds=(0, 1, 2)):
    """Rows of two judges; `added` maps weight, accuracy and seed to a gap."""
    rows = []
    for accuracy in (0.6, 1.0):
        for seed in seeds:
            plans = [("none", 0.0, 0, 0.0), ("none", 0.0, 2, 4.0)]
            plans += [("potential", 1.0, 0, potential)]
            plans += [("potential", 1.0, 2, near(accuracy) + 0.01 * seed)]
            plans += [("added", w, 0, added(w, accuracy, seed)) for w in (0.1, 1.0)]
            keys = ("use", "weight", "lookahead", "gap_percent")
            cell = {"judge": f"synthetic:{accuracy:g}", "judge_accuracy": accuracy}
            cell["rank_correlation"] = accuracy
            cell["rows"] = [dict(zip(keys, plan, strict=True)) for plan in plans]
            learn = {"family": "energy", "horizon": 10, "judge": cell["judge"]}
            rows.append({"learn": learn, "seed": seed, "feedback": cell})
    return rows


def verdicts(rows):
    """The sentences by the claim, as far as the colon."""
    texts = sentences(groups(rows))
    return dict(text.split(": ", 1) for text in texts if text != RULE)


COSTS = (
    "A reward in the order of V* (rank correlation ≥ 0.99) costs optimality if added"
)
MORE = "The larger its weight, the more it costs"
NOTHING = "As a potential, the reward of any judge costs nothing"
HELPS = "As a potential, it helps a planner that sees few decisions"
ADDED = "Added, it helps such a planner"
BETTER = "A more accurate judge costs less"


def test_the_claims_follow_the_rows():
    rows = feedback_rows(lambda w, p, seed: 10 * w + 5 * (1 - p) + 0.01 * seed)
    found = verdicts(rows)
    assert list(found) == [COSTS, MORE, NOTHING, HELPS, BETTER]
    # Gaps of the judge of accuracy 1 only: 1 and 10, and seeds add 0, 0.01 and 0.02.
    half = 4.30265 * 0.01 / 3**0.5
    assert found[COSTS] == (
        f"in energy, T = 10, confirmed in 2 of 2 cases (w = 0.1: +1.01 points, "
        f"+{1.01 - half:.2f} to +{1.01 + half:.2f}; w = 1: +10.01 points, "
        f"+{10.01 - half:.2f} to +{10.01 + half:.2f})."
    )
    assert found[MORE].startswith("in energy, T = 10, confirmed (w = 1 against 0.1: +9")
    assert found[NOTHING] == "in energy, T = 10, confirmed (at most 0 % in 6 plans)."
    assert "confirmed (w = 1, seeing 2: +0.99 points" in found[HELPS]
    # 5 (1 - 0.6) = 2 for both weights; the potential does not depend on the judge.
    assert "confirmed in 2 of 3 cases (added w = 0.1: +2.00 points" in found[BETTER]
    assert "refuted in 1 of 3 cases (potential w = 1, seeing 2: +0.00" in found[BETTER]


def test_judges_are_compared_in_the_seeds_that_both_have():
    rows = [
        row
        for row in feedback_rows(lambda w, p, seed: 10 * seed + 5 * (1 - p))
        if (row["seed"], row["feedback"]["judge_accuracy"]) not in ((2, 0.6), (0, 1.0))
    ]
    # 5 (1 - 0.6) = 2 in seed 1.
    assert "added w = 0.1: +2.00 points, one seed" in verdicts(rows)[BETTER]


def test_an_added_reward_may_help_a_planner_that_sees_few_decisions():
    rows = feedback_rows(lambda w, p, seed: w)
    assert ADDED not in verdicts(rows)
    for row in rows:
        gap = 1.5 + 0.01 * row["seed"]
        plan = {"use": "added", "weight": 1.0, "lookahead": 2, "gap_percent": gap}
        row["feedback"]["rows"].append(plan)
    found = verdicts(rows)
    # Without the reward, it loses 4.
    assert "in energy, T = 10, confirmed (w = 1, seeing 2: +2.49 points" in found[ADDED]


def test_claims_that_the_rows_contradict_are_refuted():
    rows = feedback_rows(
        lambda w, p, seed: 0.0, near=lambda accuracy: 4 + accuracy, potential=1e-3
    )
    found = verdicts(rows)
    assert "refuted in 2 of 2 cases" in found[COSTS]
    assert ", refuted (w = 1 against 0.1" in found[MORE]
    assert "refuted (at most 0.001 % in 6 plans)" in found[NOTHING]
    assert ", refuted (w = 1, seeing 2: -1.01 points" in found[HELPS]
    assert "refuted in 3 of 3 cases" in found[BETTER]
    alone = verdicts(feedback_rows(lambda w, p, seed: 9.0, seeds=(0,)))
    assert "undecided in 2 of 2 cases" in alone[COSTS] and "one seed" in alone[COSTS]


def test_a_claim_without_a_judge_that_tests_it_is_not_stated():
    rows = feedback_rows(lambda w, p, seed: w)
    found = verdicts([row for row in rows if row["feedback"]["judge_accuracy"] < 1])
    assert list(found) == [NOTHING]


def direct_rows():
    """Rows of a judge, of which seed 3 has no policy in its place."""
    rows = []
    for seed in range(4):
        plans = [("none", 0.0, 0.0), ("alone", 1.0, 50.0), ("added", 1.0, 5.0 + seed)]
        keys = ("use", "weight", "gap_percent")
        cell = {"judge": "model:smollm2", "judge_accuracy": 0.5}
        cell["rank_correlation"] = 0.1
        cell["rows"] = [
            {**dict(zip(keys, plan, strict=True)), "lookahead": 0} for plan in plans
        ]
        if seed < 3:
            cell["direct"] = {"policy": "icl:smollm2", "gap_percent": 30.0 + seed}
        learn = {"family": "energy", "horizon": 10, "judge": cell["judge"]}
        learn |= {"policy": "icl:smollm2", "uses": ["alone", "added"]}
        rows.append({"learn": learn, "seed": seed, "feedback": cell})
    return rows


def test_a_model_is_compared_as_a_judge_and_as_a_policy():
    rows = direct_rows()
    (text, rule) = sentences(groups(rows[:3]))
    assert rule == RULE
    # Gaps of the policy are 30, 31 and 32: those with added rewards are 25 less.
    half = 4.30265 / 3**0.5
    assert text == (
        "A planner with the model's reward loses less than the model as a policy: in "
        "energy, T = 10, confirmed in 1 of 2 cases (added, w = 1: +25.00 points, "
        "+25.00 to +25.00), refuted in 1 of 2 cases (alone, w = 1: -19.00 points, "
        f"{-19 - half:.2f} to {-19 + half:.2f})."
    )
    (same, _) = sentences(groups(rows))  # of the seeds that have a policy
    assert same == text
    table = studies()["feedback"].table(rows[:3])
    (line,) = table.lines
    shown = dict(zip(table.head, line.texts, strict=True))
    assert shown["policy in its place, gap, %"] == (
        f"31.00 ({31 - half:.2f} … {31 + half:.2f})"
    )
    assert studies()["feedback"].result(rows[0]) == (
        "rank correlation 0.10, gap up to 50.00 %, as a policy 30.00 %"
    )


def test_the_column_of_a_study_is_not_called_a_gap():
    about = {"learner": "feedback", "policy": "judge", "seconds": 1.0}
    rows = [about | row for row in direct_rows()]
    heads = [column.header for column in rows_table("a", rows).columns]
    assert "result" in heads and "gap, %" not in heads


def test_rows_of_other_tasks_are_other_groups():
    rows = feedback_rows(lambda w, p, seed: w)
    more = [{**r, "learn": {**r["learn"], "comparisons": 9}} for r in rows]
    names = [group.name for group in groups([*rows, *more])]
    assert names == ["energy, T = 10", "energy, T = 10, comparisons 9"]
    # Other weights are other plans of the same judge.
    plan = {"use": "added", "weight": 2.0, "lookahead": 0, "gap_percent": 7.0}
    heavier = [
        {**r, "feedback": {**r["feedback"], "rows": [plan]}, "learn": dict(r["learn"])}
        for r in rows
    ]
    (group,) = groups([*rows, *heavier])
    assert group.gaps("synthetic:1", ("added", 2.0, 0)) == [7.0] * 3
    assert len(group.plans) == 7


def published(name):
    return read_rows(PUBLISHED / name / "laptop.jsonl")


def test_the_published_table_of_feedback_is_that_of_the_rows():
    rows = published("ai-feedback")
    table = studies()["feedback"].table(rows)
    (line,) = [
        dict(zip(table.head, each.texts, strict=True))
        for each in table.lines
        if each.texts[:3] == ["energy, T = 10, tasks 100", "synthetic:0.8", "next 2"]
    ]
    gaps = [
        plan["gap_percent"]
        for row in rows
        for plan in row["feedback"]["rows"]
        if row["learn"]["family"] == "energy"
        and row["learn"]["judge"] == "synthetic:0.8"
        and (plan["use"], plan["weight"], plan["lookahead"]) == ("potential", 1.0, 2)
    ]
    mean, half = np.mean(gaps), 4.302653 * np.std(gaps, ddof=1) / 3**0.5
    assert len(gaps) == 3 == int(line["seeds"])
    shown = f"{mean:.2f} ({mean - half:.2f} … {mean + half:.2f})"
    assert line["potential, w = 1, gap, %"] == shown
    assert len(table.lines) == 2 * 5 * 2 + 3  # SmolLM2 in three families


def forgetting_rows(change):
    """Rows of three seeds; `change` gives that of perplexity by tuning and weights."""
    rows = []
    for tuning in ("policy", "reward"):
        for weights in ("adapter", "full"):
            for seed in range(3):
                before = {"perplexity": 30.0, "accuracy": 0.5, "tuning_loss": 3.0}
                after = {"perplexity": 30.0 + change(tuning, weights) + 0.01 * seed}
                after |= {"accuracy": 0.25, "tuning_loss": 1.5}
                cell = {"tuning": tuning, "weights": weights, "tokens": 2048}
                cell |= {"before": before, "after": after}
                learn = {"base": "smollm2", "tuning": tuning, "weights": weights}
                rows.append({"learn": learn, "seed": seed, "forgetting": cell})
    return rows


def test_forgetting_compares_the_ways_to_tune_by_seed():
    step = {"policy": 4.0, "reward": 1.0, "adapter": 0.0, "full": -2.0}
    study = studies()["forgetting"]
    rows = forgetting_rows(lambda *way: step[way[0]] + step[way[1]])
    policy, full, rule = study.conclusion(rows)
    assert rule == RULE  # over seeds, and not corrected for the number of claims
    # The seeds' changes differ, but not the differences within a seed.
    assert policy == (
        "Tuning as a policy raises held-out perplexity more than as a judge: in "
        "energy, base smollm2, confirmed in 2 of 2 cases (adapter: +3.00 in "
        "perplexity, +3.00 "
        "to +3.00; full: +3.00 in perplexity, +3.00 to +3.00)."
    )
    assert "refuted in 2 of 2 cases (policy: -2.00 in perplexity" in full
    table = study.table(rows)
    line = dict(zip(table.head, table.lines[1].texts, strict=True))
    assert (line["tuned as"], line["weights"], line["change"]) == (
        *("policy", "full"),
        "+2.01",
    )
    half = 4.302653 * 0.01 / 3**0.5
    assert line["95 % interval"] == f"+{2.01 - half:.2f} … +{2.01 + half:.2f}"
    assert (line["perplexity before"], line["perplexity after"]) == ("30.00", "32.01")
    one = [row for row in rows if row["seed"] == 0]
    assert all(
        "undecided in 2 of 2 cases" in text for text in study.conclusion(one)[:-1]
    )
    without = [row for row in rows if row["forgetting"]["weights"] == "adapter"]
    assert len(study.conclusion(without)) == 2
    half = study.figure(rows).to_dict()
    assert study.table([]).lines[0].done is False and not study.conclusion([])
    (values,) = [
        found["values"]
        for found in (half.get("data"), *half.get("datasets", {}).values())
        if found and "values" in found
    ]
    assert len(values) == 12


def test_a_cell_of_forgetting_is_one_training(tmp_path, monkeypatch):
    asked = []

    def tuned(config, study, tuning, seed, folder, *, adapter, progress):
        asked.append((config, study, tuning, seed, folder, adapter))
        progress("tune", 1, 4)
        return {"tuning": tuning}

    monkeypatch.setattr("sdm.feedback.forgetting.forgetting_cell", tuned)
    options = {"base": "tiny", "tuning": "reward", "weights": "full", "horizon": 4}
    options |= {"tokens": 4096, "tasks": 9, "block": 64}
    cell = dataclasses.replace(feedback_cell(options, seed=2), learner="forgetting")
    steps = []
    row = studies()["forgetting"].run(
        cell, tmp_path / "w", lambda *step: steps.append(step)
    )
    ((config, study, tuning, seed, folder, adapter),) = asked
    assert row == {"forgetting": {"tuning": "reward"}}
    assert (config.base, config.tokens, config.block) == ("tiny", 4096, 64)
    assert (study.horizon, study.tasks, study.reward.support) == (4, 9, 3)
    assert (tuning, seed, adapter, folder.is_dir()) == ("reward", 2, False, True)
    assert steps == [("training", 1, 4)]


@pytest.mark.parametrize("name", ["ai-feedback", "forgetting"])
def test_every_option_of_the_experiments_is_known(name):
    from sdm.experiments.studies.forgetting import study_of

    for profile in ("smoke", "laptop", "paper"):
        for cell in cells(experiments()[name], profile):
            made = config_of if cell.learner == "feedback" else study_of
            assert made(cell.learn) is not None
