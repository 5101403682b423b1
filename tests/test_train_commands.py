"""The command line of families and learned policies, as a user would run them."""

import json
from dataclasses import dataclass, field

import pytest
from typer.testing import CliRunner

from sdm.cli import app
from sdm.commands.config_options import fields_of, from_file

run = CliRunner().invoke
ROOM = ["--family", "darkroom", "--size", "3"]


def report_of(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "darkroom"
    options = ["--horizon", "8", "--random-trajectories", "6", "--json"]
    made = report_of(run(app, ["solve", *ROOM, *options, "--out", str(folder)]))
    assert (made["tasks"], made["family"], made["setting"]) == (7, "darkroom", "mdp")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*trained with split = 0; evaluated with")
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
        assert 0 <= row["gap_percent"] <= 100 and row["merged_agreement"] is None
    losses = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("optimal", "all")
    ]
    assert losses[0]["loss"] != losses[1]["loss"]  # the texts differ
    other = run(app, [*play, "--policy", str(tmp_path / "all"), "--split", "1"])
    assert "test goals are training goals: pass `--split 0`" in other.stderr


@pytest.mark.slow
def test_dpt_and_cql_are_trained_and_stand_in_one_table(data, tmp_path):
    dpt, cql = (str(tmp_path / name) for name in ("dpt-darkroom", "cql-darkroom"))
    ask = ["train", "dpt", "--data", str(data), "--out", dpt, "--steps", "3"]
    done = report_of(run(app, [*ask, "--json"]))
    assert done["policy"] == f"dpt:{dpt}" and done["steps"] == 3
    assert run(app, ask).exit_code == 2  # it is there already
    finished = run(app, [*ask, "--resume"])
    assert finished.exit_code == 2 and "is already complete" in finished.stderr
    ask = ["train", "cql", "--data", str(data), "--out", cql, "--steps", "20"]
    report_of(run(app, [*ask, "--json"]))
    names = [f"dpt:{tmp_path}/dpt-{{family}}", f"cql:{cql}", "all"]
    policies = [word for name in names for word in ("--policy", name)]
    play = ["eval", *ROOM, "--horizon", "8", "--reference", "ce", *policies]
    found = report_of(run(app, [*play, "--json"]))["policies"]
    assert {f"dpt:{dpt}", f"cql:{cql}", "oracle", "bc", "psrl"} <= found.keys()
    # The plan over candidates has bounds instead.
    inexact = [n for n, row in found.items() if row["exact_gap_percent"] is None]
    assert inexact == ["bayes-adaptive"]
    assert found["bayes-adaptive"]["plan_gap_percent"] < 0.1
    shown = run(app, play)
    assert (
        shown.exit_code == 0
        and "darkroom, mdp, T = 8, size = 3, 2 tasks x 5" in shown.stdout
    )


@pytest.mark.slow
def test_every_kind_is_played_at_once_beside_the_papers_rows(tmp_path):
    out = tmp_path / "all.json"
    options = ["--tasks", "2", "--trajectories", "2", "--support", "2"]
    policies = ["--policy", "random", "--policy", "always-work", "--policy", "mixture"]
    ask = ["eval", "--setting", "all", "--q", "1.0", *policies, *options]
    found = report_of(run(app, [*ask, "--K", "2", "--out", str(out), "--json"]))
    assert found == json.loads(out.read_text())
    played = {name: set(test["policies"]) for name, test in found["benchmarks"].items()}
    assert played == {
        "energy mdp": {"random", "always-work"},
        "energy pomdp": {"random", "always-work"},
        "energy apomdp": {"random", "always-work", "mixture"},
    }
    paper = {name: test["paper"] for name, test in found["benchmarks"].items()}
    assert paper["energy mdp"]["dpt"] == "7" and paper["energy pomdp"]["dpt"] == "26"
    assert paper["energy apomdp"] == {}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--policy", "always-work", *ROOM], "family `darkroom` has no such action"),
        (["--policy", "dpt:nowhere"], "`nowhere` holds no policy"),
        (["--policy", "random", *ROOM, "--tasks", "3"], "at most 2, the test tasks"),
        (["--policy", "random", "--setting", "room"], "unknown kind of model"),
        (
            ["--policy", "random", "--reference", "ce"],
            "among the policies evaluated on energy mdp",
        ),
        (["--policy", "none", "--setting", "all"], "`none`"),
    ],
)
def test_what_cannot_be_played_is_one_line(words, message):
    result = run(app, ["eval", *words])
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.count("error:") == 1


@pytest.mark.slow
def test_kinds_that_nobody_plays_are_left_out():
    play = ["eval", "--setting", "all", "--tasks", "3", "--json"]
    found = report_of(run(app, [*play, "--policy", "bayes-imitation"]))
    assert list(found["benchmarks"]) == ["energy mdp"]
    assert list(found["benchmarks"]["energy mdp"]["policies"]) == ["bayes-imitation"]


def test_options_of_other_families_are_refused():
    result = run(app, ["solve", *ROOM, "--horizon", "3", "--p-min", "0.3"])
    assert result.exit_code == 2 and "--p-min" in result.stderr
    result = run(app, ["solve", "--tasks", "2", "--horizon", "3", "--size", "4"])
    assert result.exit_code == 2 and "--size" in result.stderr


@pytest.mark.slow
def test_a_file_sets_options_and_the_command_line_changes_them(data, tmp_path):
    file = tmp_path / "dpt.yaml"
    file.write_text(f"data: {data}\nsteps: 5\nlearning-rate: 1e-2\nwidth: 16\n")
    out = str(tmp_path / "run")
    ask = ["train", "dpt", "--config", str(file), "--out", out, "--steps", "3"]
    assert report_of(run(app, [*ask, "--json"]))["steps"] == 3
    about = json.loads((tmp_path / "run" / "policy.json").read_text())
    chosen = {name: about["config"][name] for name in ("width", "learning_rate")}
    assert chosen == {"width": 16, "learning_rate": 0.01}
    play = tmp_path / "eval.yaml"
    play.write_text("horizon: 4\ntasks: 2\ntrajectories: 3\ndemonstrations: random\n")
    ask = ["eval", "--policy", "ce", "--config", str(play), "--tasks", "3", "--json"]
    found = report_of(run(app, ask))["config"]
    names = ("horizon", "tasks", "trajectories", "demonstrations")
    assert [found[name] for name in names] == [4, 3, 3, "random"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step: 5", "unknown option 'step': choose from data"),
        ("steps: many", "steps: expected int, found 'many'"),
        ("[1, 2]", "expected names and values, found list"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(text, message, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    ask = ["train", "dpt", "--out", str(tmp_path / "run"), "--config"]
    result = run(app, [*ask, str(tmp_path / "c.yaml")])
    assert result.exit_code == 2 and message in result.stderr
    assert result.stderr.count("error:") == 1


def test_cql_without_d3rlpy_says_how_to_get_it(data, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "d3rlpy" else find(n)
    )
    ask = ["train", "cql", "--data", str(data), "--out", str(tmp_path / "run")]
    result = run(app, ask)
    assert result.exit_code == 1 and "pip install 'sdm-llm[cql]'" in result.stderr


def test_the_version_is_printed():
    import sdm

    assert run(app, ["--version"]).stdout.strip() == sdm.__version__


@dataclass(frozen=True)
class Options:
    """Options of every type.

    Attributes:
        count: a number or a word.
        share: a number.
        steps: a whole number.
        each: a flag.
        word: a number or a word.
        size: a number with another name.

    """

    count: int | str = "all"
    share: float = 0.5
    steps: int = 1
    each: bool = True
    word: float | str = "none"
    size: int = field(default=1, metadata={"option": "--how-many"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("share: 1", {"share": 1.0}),
        ("share: 1e-3", {"share": 1e-3}),
        ("count: '12'", {"count": 12}),
        ("count: twelve", {"count": "twelve"}),
        ("word: 1e-3", {"word": "1e-3"}),
        ("how_many: 3", {"size": 3}),
        ("how-many: 3", {"size": 3}),
        ("size: 3", {"size": 3}),
        ("each: false", {"each": False}),
    ],
)
def test_values_of_a_file_have_the_types_of_their_fields(text, value, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    found = from_file(tmp_path / "c.yaml", fields_of(Options))
    assert found == value
    assert [*map(type, found.values())] == [*map(type, value.values())]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"share: true", "share: expected float, found True"),
        (b"steps: true", "steps: expected int, found True"),
        (b"steps: 1.5", "steps: expected int, found 1.5"),
        (b"steps: null", "steps: expected int, found None"),
        (b"each: 1", "each: expected bool, found 1"),
        (b"\xff", "cannot be read"),
    ],
)
def test_values_of_other_types_are_refused(text, message, tmp_path):
    (tmp_path / "c.yaml").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / "c.yaml", fields_of(Options))


def test_a_zero_on_the_command_line_is_a_value(tmp_path):
    ask = ["train", "dpt", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    result = run(app, [*ask, "--steps", "0"])
    assert result.exit_code == 2 and "steps = 0" in result.stderr
