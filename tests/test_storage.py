"""What is written is whole or not there, and nothing is lost by accident."""

import subprocess
import sys
from pathlib import Path

import pytest

from sdm.storage.files import (
    PLAN,
    StorageError,
    check_output_file,
    file_in_progress,
    folder_in_progress,
    write_atomically,
)
from sdm.storage.locks import LockedError


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_ours_is_never_replaced(tmp_path, kind):
    out = tmp_path / "precious"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("…")
        # Names that many a program uses.
        (out / "manifest.json").write_text("{}")
        (out / PLAN).write_text('{"a": 1}')
    else:
        out.write_text("…")
    for option in ("overwrite", "resume"):
        with pytest.raises(StorageError, match="was not written by sdm"):
            with folder_in_progress(out, {}, **{option: True}):
                pass
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


class Killed(BaseException):
    """What a kill leaves behind, without the kill."""


def begin(out, plan, **options):
    """Begin a folder, put a file in it, and be cut off."""
    with (
        pytest.raises(Killed),
        folder_in_progress(out, plan, **options) as folder,
    ):
        (folder / "kept").touch()
        raise Killed
    return folder


def finish(out, plan, **options):
    with folder_in_progress(out, plan, **options) as folder:
        (folder / "manifest.json").write_text(str(plan))


def test_a_folder_is_begun_once_and_never_overwritten_unasked(tmp_path):
    out, plan = tmp_path / "out", {"a": 1}
    partial = begin(out, plan)
    assert (partial / "kept").exists() and not out.exists()
    with pytest.raises(StorageError, match="unfinished run"):
        finish(out, plan)
    with pytest.raises(StorageError, match="other options: a was 1 and is 2"):
        finish(out, {"a": 2}, resume=True)
    finish(out, plan, resume=True)
    assert (out / "kept").exists() and not partial.exists()
    with pytest.raises(StorageError, match="already complete: there is nothing"):
        finish(out, plan, resume=True)
    with pytest.raises(StorageError, match=r"exists already$"):
        finish(out, {"a": 2})
    with pytest.raises(StorageError, match="made with other options: a was 1 and is 2"):
        finish(out, {"a": 2}, resume=True)
    begin(out, {"a": 2}, overwrite=True)
    assert (out / "manifest.json").exists()  # kept until the new one is whole
    finish(out, {"a": 3}, overwrite=True)
    assert "3" in (out / "manifest.json").read_text() and not (out / "kept").exists()


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"x": {"a": 1, "b": [1]}}, {"x": {"a": 1, "b": [2]}}, "x.b differs"),
        ({"x": {"a": 1}}, {"x": {"a": 1, "c": True}}, "x.c was null and is true"),
        ({"x": "s"}, {}, 'x was "s" and is null'),
    ],
)
def test_the_option_that_differs_is_named(tmp_path, before, now, words):
    begin(tmp_path / "out", before)
    with pytest.raises(StorageError, match=f"options: {words}"):
        finish(tmp_path / "out", now, resume=True)


def test_a_kill_at_the_very_beginning_is_no_obstacle(tmp_path):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / f"{PLAN}.tmp").write_text("{")
    finish(tmp_path / "out", {}, overwrite=True)
    assert (tmp_path / "out" / PLAN).is_file()


def test_a_failure_before_any_work_leaves_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match="too large"),
        folder_in_progress(tmp_path / "out", {}) as folder,
    ):
        (folder / "checkpoints").mkdir()
        raise ValueError("too large")
    assert not list(tmp_path.iterdir())


def test_a_failure_after_some_work_keeps_it(tmp_path):
    with (
        pytest.raises(ValueError, match="disk full"),
        folder_in_progress(tmp_path / "out", {}) as folder,
    ):
        (folder / "shard").touch()
        raise ValueError("disk full")
    assert (tmp_path / "out.partial" / "shard").exists()


HOLD = """
import sys, time
from pathlib import Path
from sdm.storage.files import folder_in_progress
with folder_in_progress(Path(sys.argv[1]), {}) as folder:
    (folder / "kept").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}, {}])
def test_a_folder_that_another_process_writes_is_locked(holder, options, tmp_path):
    words = rf"out.partial` is locked by another process: process {holder.pid} on"
    with pytest.raises(LockedError, match=words) as error:
        finish(tmp_path / "out", {}, **options)
    assert "pass `--resume`" in error.value.hint
    assert (tmp_path / "out.partial" / "kept").exists()


def test_the_lock_of_a_killed_process_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    finish(tmp_path / "out", {}, resume=True)
    assert (tmp_path / "out" / "kept").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no lock is left


def test_a_file_that_another_process_writes_is_locked(tmp_path):
    out = tmp_path / "scores.json"
    with file_in_progress(out, {}):
        with pytest.raises(LockedError), file_in_progress(out, {}, resume=True):
            pass
    assert not list(tmp_path.iterdir())


def test_a_file_of_which_nothing_was_kept_leaves_no_folder(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), file_in_progress(tmp_path / "scores.json", {}):
            raise error
        assert not list(tmp_path.iterdir())


def test_an_input_is_never_replaced(tmp_path):
    data = tmp_path / "all" / "data"
    data.mkdir(parents=True)
    (tmp_path / "all" / "manifest.json").touch()
    for out in (data, data.parent):
        with (
            pytest.raises(StorageError, match="would replace the input"),
            folder_in_progress(out, {}, inputs=(data,), overwrite=True),
        ):
            pass
    assert data.is_dir()


def test_a_file_that_cannot_be_written_is_known_beforehand(tmp_path):
    check_output_file(tmp_path / "new" / "scores.json", overwrite=False)
    (tmp_path / "taken").touch()
    for path, overwrite, words in (
        (tmp_path, True, "is a folder"),
        (tmp_path / "taken", False, "exists already"),
        (tmp_path / "taken" / "scores.json", True, "cannot be written"),
        (Path("/proc/scores.json"), False, "cannot be written"),
    ):
        with pytest.raises(StorageError, match=words):
            check_output_file(path, overwrite=overwrite)
    check_output_file(tmp_path / "taken", overwrite=True)


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path):
    with pytest.raises(OSError):
        write_atomically(tmp_path, "a folder has this name")
    assert not list(tmp_path.parent.glob("*.tmp"))
