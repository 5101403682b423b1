"""A process can be killed at any moment: what has its name is whole, and work resumes.

The fast tests stop the file operations of this process at every one in turn. The slow
ones kill processes of the command line at random moments.
"""

import os
import shutil

import pytest
from file_events import killed_at

from sdm.storage.files import (
    StorageError,
    file_in_progress,
    folder_in_progress,
    write_atomically,
)
from sdm.storage.ownership import partial_folder

FILES = ("first", "inner/second", "third")


def write(out, version, **options):
    """Write a folder of three files, those of an earlier attempt included."""
    with folder_in_progress(out, {"version": version}, **options) as folder:
        (folder / "inner").mkdir(exist_ok=True)
        for name in FILES:
            if not (folder / name).is_file():
                write_atomically(folder / name, f"{name} of {version}")


def content(out):
    """Return the version of a folder, which must be whole; None if there is none."""
    if not out.exists():
        return None
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert names == {*FILES, "plan.json"}
    (version,) = {(out / name).read_text().split(" of ")[1] for name in FILES}
    return version


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_a_folder_is_whole_after_a_kill_at_any_operation(tmp_path, replace, resumable):
    base, kills, finished = tmp_path / "base", 0, False
    out = base / "out"
    while not finished:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        if replace:
            write(out, "old")
        before = "old" if replace else None
        options = {"overwrite": replace, "resumable": resumable}
        with killed_at(base, kills):
            write(out, "new", **options)
            finished = True
        assert content(out) in {before, "new", None}
        if not finished:
            finish(out, replace=replace, resumable=resumable)
        assert content(out) == "new"
        assert [path.name for path in base.iterdir()] == ["out"]
        kills += 1
    assert kills > 15


def finish(out, *, replace, resumable):
    """Repeat the command as a user would: with `--resume` if it has it."""
    options = {"overwrite": replace, "resumable": resumable}
    options["resume"] = resumable
    try:
        write(out, "new", **options)
    except StorageError as error:
        # The kill came after the new folder had its name.
        assert "exists already" in str(error) or "already complete" in str(error)
        assert content(out) == "new"
        write(out, "new", overwrite=True, resumable=resumable)


def test_kills_one_after_another_lose_nothing(tmp_path):
    out, kills = tmp_path / "out", 0
    while content(out) is None:
        with killed_at(tmp_path, kills % 7 + 5):
            write(out, "new", resume=True)
        kills += 1
        assert kills < 100
    assert not partial_folder(out).exists() and content(out) == "new"


def test_the_folder_of_a_file_in_progress_survives_a_kill_anywhere(tmp_path):
    base, kills, finished = tmp_path / "base", 0, False
    while not finished:
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir()
        out = base / "scores.json"
        with killed_at(base, kills):
            score(out)
            finished = True
        assert not out.exists() or out.read_text() == "whole"
        if not finished:
            try:
                score(out, resume=True)
            except StorageError as error:  # the kill came after it was written
                assert "exists already" in str(error)
        assert out.read_text() == "whole"
        # A lock that a dead process held may stay: it is free.
        left = [x.name for x in base.iterdir() if x.suffix not in (".lock", ".holder")]
        assert left == ["scores.json"]
        kills += 1
    assert kills > 10


def test_a_new_evaluation_of_an_old_file_is_kept_for_its_resumption(tmp_path):
    out = tmp_path / "scores.json"
    out.write_text("old")
    os.utime(out, ns=(0, 0))
    with pytest.raises(KeyboardInterrupt):
        with file_in_progress(out, {"a": 1}, overwrite=True) as folder:
            write_atomically(folder / "part", "part")
            raise KeyboardInterrupt
    part = partial_folder(out) / "part"
    assert part.is_file() and out.read_text() == "old"
    with pytest.raises(StorageError, match="exists already"):
        score(out, resume=True)
    assert part.is_file()
    score(out, resume=True, overwrite=True)
    assert out.read_text() == "whole" and not part.exists()


def score(out, **options):
    with file_in_progress(out, {"a": 1}, **options) as folder:
        write_atomically(folder / "part", "part")
        write_atomically(out, "whole")
