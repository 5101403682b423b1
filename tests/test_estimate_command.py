"""`sdm estimate`, as a user would run it, and what reads the files that it writes."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.estimation import EstimationConfig, estimate_models
from sdm.data.estimation.estimator import estimators
from sdm.data.estimation.files import model_names
from sdm.data.logs import read_logs
from sdm.tasks.model_files import load_with_names

run = CliRunner().invoke
HEADER = "episode,step,observation,action,reward,task,done"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two sites with 30 episodes each; an episode ends with 1 or is cut off."""
    generator, lines = np.random.default_rng(0), [HEADER]
    for episode in range(60):
        site = ("north/1", "south")[episode % 2]
        seen = "mild"
        for step in range(4):
            action = ("wait", "treat")[generator.integers(2)]
            cured = generator.random() < (0.5 if action == "treat" else 0.1)
            reward = 1 if cured else (-0.1 if action == "treat" else 0)
            lines.append(
                f"{episode},{step},{seen},{action},{reward},{site},{str(cured).lower()}"
            )
            if cured:
                break
            seen = "severe" if generator.random() < 0.5 else "mild"
        else:
            lines.append(f"{episode},4,{seen},,,{site},")
    path = tmp_path_factory.mktemp("logs") / "visits.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def report_of(*words):
    result = run(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error_of(*words):
    result = run(app, [*map(str, words)])
    assert result.exit_code == 2 and "Traceback" not in result.output
    return result.stderr


def test_episodes_are_described(table):
    found = report_of("estimate", table, "--describe")
    logs = read_logs(table)
    assert (found["episodes"], found["tasks"]) == (60, 2)
    assert found["decisions"] == int(logs.length.sum())
    assert found["ended"] + found["cut_off"] == 60
    assert found["coverage"]["pairs"] == found["coverage"]["possible"] == 4
    shown = run(app, ["estimate", str(table), "--describe"])
    assert shown.exit_code == 0
    for text in ("pairs of observation and action", "4 of 4 seen", "Returns", "treat"):
        assert text in shown.stdout


def test_models_are_written_with_names_and_a_report(table, tmp_path):
    out = tmp_path / "sites"
    found = report_of("estimate", table, "--out", out, "--prior", "2", "--seed", "3")
    logs = read_logs(table)
    expected, report = estimate_models(
        logs, estimators()["tabular"](), EstimationConfig(prior=2.0), seed=3
    )
    for name in ("states", "actions", "episodes", "unvisited", "radius", "horizon"):
        assert found[name] == report[name]
    assert found["held_out_log_likelihood"] == report["held_out_log_likelihood"]
    files = ("0-north-1.npz", "1-south.npz")
    assert found["models"] == {"north/1": files[0], "south": files[1]}
    for file, model in zip(files, expected.models, strict=True):
        read = load_with_names(out / file)
        assert read.states == ("mild", "severe", "end with 1", "end")
        assert read.actions == ("treat", "wait") and read.observations == ()
        np.testing.assert_array_equal(read.model.transition, model.transition)
        np.testing.assert_array_equal(read.model.reward, model.reward)
    made = json.loads((out / "config.json").read_text())
    assert made["seed"] == 3 and made["config"]["prior"] == 2.0
    assert len(made["logs"]["sha256"]) == 64 and "versions" in made["provenance"]
    written = json.loads((out / "results.json").read_text())
    assert written["held_out_log_likelihood"] == found["held_out_log_likelihood"]
    text = (out / "README.md").read_text()
    assert "solve --model 0-north-1.npz --horizon 5" in text
    assert (out / "estimate.png").read_bytes().startswith(b"\x89PNG")


def test_a_written_folder_is_a_family(table, tmp_path):
    out = tmp_path / "sites"
    report_of("estimate", table, "--out", out)
    solved = report_of("solve", "--model", out / "1-south.npz", "--horizon", 5)
    assert solved["kind"] == "MDP" and "treat" in solved["action_name"]
    tasks = report_of("solve", "--family", out, "--horizon", 5)
    assert tasks["tasks"] == 1  # of two files, one is for tests
    assert tasks["value_mean"] > 0


FORMS = [
    (["--estimator", "l1", "--radius", "credible"], "L1MDP"),
    (["--estimator", "kl"], "KLMDP"),
    (["--estimator", "posterior", "--models", "3"], "RobustMDP"),
    (["--estimator", "posterior", "--form", "hidden", "--models", "2"], "MOMDP"),
    (["--estimator", "tabular", "--unvisited", "forbid", "--min-visits", "4"], "MDP"),
    pytest.param(
        ["--estimator", "hidden", "--restarts", "1", "--iterations", "5"],
        "POMDP",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "kind"), FORMS)
def test_every_form_is_written_and_read(table, tmp_path, words, kind):
    found = report_of("estimate", table, *words, "--out", tmp_path / "out")
    assert found["class"] == kind
    read = load_with_names(tmp_path / "out" / "0-north-1.npz")
    assert type(read.model).__name__ == kind and read.actions == ("treat", "wait")
    balls = kind in ("L1MDP", "KLMDP")
    assert (found["radius"] is not None) == balls
    if kind == "POMDP":
        assert read.observations[:2] == ("mild", "severe")


def test_folders_are_kept_unless_overwritten(table, tmp_path):
    out = tmp_path / "out"
    report_of("estimate", table, "--out", out)
    before = (out / "results.json").read_bytes()
    assert "exists already" in error_of("estimate", table, "--out", out)
    report_of("estimate", table, "--out", out, "--prior", "9", "--overwrite")
    assert (out / "results.json").read_bytes() != before
    around = table.parent
    assert "not written by sdm" in error_of("estimate", table, "--out", around)
    found = error_of("estimate", table, "--out", around, "--overwrite")
    assert "would replace the input" in found


def test_bad_logs_and_options_are_named(table, tmp_path):
    lines = table.read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:4], "", *lines[4].split(",")[5:]])
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("\n".join(lines) + "\n")
    found = error_of("estimate", wrong)
    assert found.startswith("error: logs `") and "is missing in row 5" in found
    assert "`reward` is above 0.5 in rows" in error_of(
        "estimate", table, "--reward-max", "0.5"
    )
    assert "must be one of hidden, kl, l1" in error_of(
        "estimate", table, "--estimator", "no"
    )
    assert "no such option" in error_of("estimate", table, "--confidence", "1").lower()
    assert "no such file" in error_of("estimate", tmp_path / "no.csv")
    assert "`--describe` writes no folder" in error_of(
        "estimate", table, "--describe", "--out", tmp_path / "x"
    )


def test_help_shows_the_options_of_the_estimator():
    shown = run(
        app, ["estimate", "--estimator", "l1", "--help"], env={"COLUMNS": "200"}
    )
    assert shown.exit_code == 0
    for text in ("Options of estimator l1", "--confidence", "--radius", "--min-visits"):
        assert text in shown.stdout
    assert "--restarts" not in shown.stdout


def test_file_names_of_tasks_are_safe_and_in_order():
    assert model_names(("all",)) == ("model.npz",)
    names = model_names(tuple(f"../a b{i}" for i in range(11)))
    assert names[0] == "00-a-b0.npz" and list(names) == sorted(names)
