"""Full disks, Ctrl-C, two writers, other languages and times: nothing is lost."""

import ast
import errno
import os
import random
import signal
import subprocess
import sys
import threading

import pytest
from bad_input import call
from file_events import full_at
from test_kill_commands import found, inputs, process, words_of
from test_kills import content, write
from test_security import ROOT, called, imported, sources

from sdm.storage.files import temporary_name, write_atomically
from sdm.storage.ownership import partial_folder

__all__ = ["inputs"]  # a fixture
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Runs a command whose files may not grow beyond 3,000 bytes.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_full_disk_at_any_operation_loses_nothing(tmp_path):
    out, operations, failed = tmp_path / "base" / "out", 0, True
    out.parent.mkdir()
    while failed:
        write(out, "old", overwrite=True)
        failed = True
        with full_at(out.parent, operations, FULL[operations % 3]):
            try:
                write(out, "new", overwrite=True)
                failed = False
            except (OSError, ValueError) as error:
                assert os.strerror(FULL[operations % 3]) in str(error)
        assert content(out) == ("old" if failed else "new")
        write(out, "new", overwrite=True, resume=partial_folder(out).exists())
        assert content(out) == "new"
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        operations += 1
    assert operations > 5


def test_two_writers_of_a_file_have_two_temporary_names(tmp_path, monkeypatch):
    """As two processes do, each of which ends with a whole file."""
    path = tmp_path / "report.json"
    with temporary_name(path) as mine:
        mine.write_text("mine, half")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            write_atomically(path, "theirs")
        assert path.read_text() == "theirs"
        assert mine.read_text() == "mine, half"
        mine.write_text("mine")
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.slow
def test_no_duration_is_measured_by_a_clock_that_can_be_set():
    users = {
        str(path.relative_to(ROOT))
        for path, tree in sources()
        for names in (imported(tree),)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node, names) == "time.time"
    }
    assert users <= {"storage/locks.py"}  # since when a lock is held, for people


@pytest.mark.slow
@pytest.mark.parametrize("name", ["solve", "estimate", "plan"])
def test_a_command_on_a_full_disk_fails_in_one_line(name, inputs, tmp_path):
    whole, failed, operations = None, True, 0
    while failed:
        base = tmp_path / str(operations)
        base.mkdir()
        with full_at(base, operations, errno.ENOSPC):
            code, _, err = call(words_of(name, inputs, base / "out"))
        failed = code != 0
        if failed:
            lines = [line for line in err.splitlines() if line.startswith("error: ")]
            assert code in (1, 2) and len(lines) == 1 and "Traceback" not in err
            assert "No space left on device" in lines[0], err
            code, _, err = call(words_of(name, inputs, base / "out", again=True))
            assert code == 0, err
        whole = whole or found(base)
        assert found(base) == whole
        operations += 1
    assert operations > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["solve", "estimate", "train dpt", "finetune"])
def test_a_file_that_may_not_grow_is_an_error_of_one_line(name, inputs, tmp_path):
    """Also of libraries that write by themselves, such as Arrow and safetensors."""
    environment = os.environ | {"SDM_CACHE": str(tmp_path / "cache")}
    words = process(name, inputs, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words],
        capture_output=True,
        text=True,
        env=environment,
    )
    errors = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["solve", "finetune"])
def test_ctrl_c_at_any_moment_is_one_line(name, inputs, tmp_path):
    chance, out = random.Random(name), tmp_path / "out"
    ended = 0
    for attempt in range(10):
        started = subprocess.Popen(
            process(name, inputs, out, again=attempt > 0),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(chance.uniform(0.5, 15), os.killpg, (started.pid, 2))
        timer.start()
        _, err = started.communicate()
        timer.cancel()
        assert "Traceback" not in err, err
        # While Python itself starts, or a library loads, the system ends the process.
        assert started.returncode in (0, 130, -signal.SIGINT, 2), err
        if started.returncode == 130:
            assert err.count("interrupted; `--resume`") == 1
            assert err.splitlines()[-1].startswith("interrupted")
        if started.returncode == 2:
            assert "already complete" in err
            ended += 1
    code, _, err = call(words_of(name, inputs, out, again=True))
    assert code == 0 or "already complete" in err, err


@pytest.mark.slow
@pytest.mark.parametrize(
    "where",
    [
        {"LC_ALL": "C", "TZ": "Pacific/Apia"},
        {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"},
        {"LC_ALL": "C.UTF-8", "TZ": "nonsense", "PYTHONUTF8": "1"},
    ],
)
def test_languages_times_and_names_change_nothing(where, inputs, tmp_path):
    folder = tmp_path / "ein Ördner mit İ"
    folder.mkdir()
    words = [sys.executable, str(ROOT / "cli.py")]

    def run(*more, cwd=folder):
        done = subprocess.run(
            [*words, *more], cwd=cwd, capture_output=True, env=os.environ | where
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    tasks = ["--tasks", "6", "--horizon", "3", "--trajectories", "3"]
    run("solve", *tasks, "--out", "dätä x")
    shard = "shard-00000.parquet"
    made, plain = folder / "dätä x" / shard, inputs / "data" / shard
    assert made.read_bytes() == plain.read_bytes()
    options = ["--support", "1", "--steps", "2", "--out", "dpt ü"]
    run("train", "dpt", "--data", "dätä x", *options)
    # A relative path, from another folder; the data may be gone.
    made.unlink()
    policy = f"dpt:{folder.name}/dpt ü"
    shown = run("eval", "--policy", policy, *tasks, *options[:2], cwd=tmp_path)
    assert "dpt ü" in shown.decode()
