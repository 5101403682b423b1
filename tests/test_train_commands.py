"""The command line of Darkroom and of learned policies, as a user would run them."""

import json

import pytest
from typer.testing import CliRunner

from sdm.cli import app

run = CliRunner().invoke
ROOM = ["--setting", "darkroom", "--size", "3"]


def report_of(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "darkroom"
    options = ["--horizon", "8", "--random-trajectories", "6", "--json"]
    made = report_of(run(app, ["solve", *ROOM, *options, "--out", str(folder)]))
    assert made["tasks"] == 7 and made["setting"] == "darkroom"
    return folder


def test_darkroom_is_learned_and_played(data, tmp_path):
    learn = ["finetune", "--data", str(data), "--base", "tiny", "--epochs", "1"]
    play = ["eval", *ROOM, "--horizon", "8", "--json"]
    for demonstrations in ("optimal", "all"):
        out = str(tmp_path / demonstrations)
        shown = ["--demonstrations", demonstrations, "--texts-per-task", "4"]
        report_of(run(app, [*learn, *shown, "--out", out, "--json"]))
        found = report_of(run(app, [*play, "--policy", out, "--policy", "bc"]))
        assert found["config"]["tasks"] == 2 and found["config"]["trajectories"] == 5
        assert found["policies"]["bc"]["gap_percent"] == 0
        row = found["policies"][out]
        assert 0 <= row["gap_percent"] <= 100 and row["work_agreement"] is None
    losses = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("optimal", "all")
    ]
    assert losses[0]["loss"] != losses[1]["loss"]  # the texts differ
    other = run(app, [*play, "--policy", str(tmp_path / "all"), "--split", "1"])
    assert "of the goals that this test holds out: its `--split` was 0" in other.stderr


def test_dpt_and_cql_are_trained_and_stand_in_one_table(data, tmp_path):
    dpt, cql = (str(tmp_path / name) for name in ("dpt-darkroom", "cql-darkroom"))
    ask = ["train", "dpt", "--data", str(data), "--out", dpt, "--steps", "3"]
    done = report_of(run(app, [*ask, "--json"]))
    assert done["policy"] == f"dpt:{dpt}" and done["steps"] == 3
    assert run(app, ask).exit_code == 2  # it is there already
    finished = run(app, [*ask, "--resume"])
    assert finished.exit_code == 2 and "is finished already" in finished.stderr
    ask = ["train", "cql", "--data", str(data), "--out", cql, "--steps", "20"]
    report_of(run(app, [*ask, "--json"]))
    names = [f"dpt:{tmp_path}/dpt-{{setting}}", f"cql:{cql}", "all"]
    policies = [word for name in names for word in ("--policy", name)]
    play = ["eval", *ROOM, "--horizon", "8", "--reference", "ce", *policies]
    found = report_of(run(app, [*play, "--json"]))["policies"]
    assert {f"dpt:{dpt}", f"cql:{cql}", "oracle", "bc", "psrl"} <= found.keys()
    assert all(row["exact_gap_percent"] is not None for row in found.values())
    shown = run(app, play)
    assert shown.exit_code == 0 and "darkroom, T = 8, 2 tasks x 5" in shown.stdout


def test_every_setting_is_played_at_once_beside_the_papers_rows(tmp_path):
    out = tmp_path / "all.json"
    options = ["--tasks", "2", "--trajectories", "2", "--support", "2"]
    policies = ["--policy", "random", "--policy", "always-work", "--policy", "mixture"]
    ask = ["eval", "--setting", "all", "--q", "1.0", *policies, *options]
    found = report_of(run(app, [*ask, "--K", "2", "--out", str(out), "--json"]))
    assert found == json.loads(out.read_text())
    played = {name: set(test["policies"]) for name, test in found["settings"].items()}
    assert played == {
        "mdp": {"random", "always-work"},
        "pomdp": {"random", "always-work"},
        "apomdp": {"random", "always-work", "mixture"},
        "darkroom": {"random"},
    }
    paper = {name: test["paper"] for name, test in found["settings"].items()}
    assert paper["mdp"]["dpt"] == "7" and paper["pomdp"]["dpt"] == "26"
    assert paper["darkroom"]["sft"] == "5" and paper["apomdp"] == {}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "always-work", *ROOM], "does not fit darkroom tasks: those that"),
        (["--policy", "dpt:nowhere"], "`nowhere` holds no policy"),
        (["--policy", "random", *ROOM, "--tasks", "3"], "2 goals are held out"),
        (["--policy", "random", "--setting", "room"], "unknown setting `room`"),
        (
            ["--policy", "random", "--reference", "ce"],
            "among the policies that play mdp",
        ),
        (["--policy", "none", "--setting", "all"], "`none`"),
    ],
)
def test_what_cannot_be_played_is_one_line(words, message):
    result = run(app, ["eval", *words])
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.count("error:") == 1


def test_settings_that_nobody_plays_are_left_out():
    play = ["eval", "--setting", "all", "--tasks", "3", "--json"]
    found = report_of(run(app, [*play, "--policy", "bayes-imitation"]))
    assert list(found["settings"]) == ["mdp"]
    assert list(found["settings"]["mdp"]["policies"]) == ["bayes-imitation"]


def test_options_of_other_settings_are_pointed_out():
    result = run(app, ["solve", *ROOM, "--horizon", "3", "--p-min", "0.3"])
    assert "`--p-min` does nothing for darkroom tasks" in result.stderr
    result = run(app, ["solve", "--tasks", "2", "--horizon", "3", "--size", "4"])
    assert "`--size` does nothing for mdp tasks" in result.stderr


def test_cql_without_d3rlpy_says_how_to_get_it(data, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "d3rlpy" else find(n)
    )
    ask = ["train", "cql", "--data", str(data), "--out", str(tmp_path / "run")]
    result = run(app, ask)
    assert result.exit_code == 1 and "pip install 'sdm-llm[cql]'" in result.stderr


def test_the_version_is_told():
    import sdm

    assert run(app, ["--version"]).stdout.strip() == sdm.__version__
