"""What a command shows while it works, on a real pseudo-terminal and elsewhere."""

import json
import os
import signal
import subprocess
import sys

import pytest
from terminal_support import SDM, run_on_terminal

from sdm.commands.progress import duration
from sdm.data.generation import covered

WORK = (
    "import time, sys\n"
    "from sdm.commands.progress import doing, progress_bars\n"
    "with progress_bars() as bar:\n"
    "    time.sleep(0.3)\n"
    "    doing('reading the rows')\n"
    "    time.sleep(0.3)\n"
    "    for done in range(3):\n"
    "        bar('solving', done, 2)\n"
    "print('done', 'jax' in sys.modules)"
)
HIDE_CURSOR = "\x1b[?25l"


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_a_terminal_shows_what_the_command_does(columns, tmp_path):
    command = [sys.executable, "-c", WORK]
    shown, code = run_on_terminal(command, tmp_path, columns=columns, plain=False)
    assert code == 0 and "done False" in shown
    steps = ("importing packages", "reading the rows", "solving", "2 of 2")
    places = [shown.index(step) for step in steps]
    assert places == sorted(places)
    # Ctrl-C while a library loads ends the process at once, so the cursor stays.
    assert HIDE_CURSOR not in shown


def test_elsewhere_a_step_is_one_line():
    done = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True
    )
    assert done.stderr == "solving …\n" and done.stdout == "done False\n"


@pytest.mark.slow
def test_a_terminal_shows_something_before_jax_is_there_and_compilation(tmp_path):
    ask = [*SDM, "solve", "--tasks", "4"]
    shown, code = run_on_terminal(ask, tmp_path)
    assert code == 0
    steps = ("importing packages", "compiling `columns`, once", "4 of 4", "value_mean")
    places = [shown.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.slow
def test_ctrl_c_while_libraries_load_ends_at_once(tmp_path):
    ask = [*SDM, "solve", "--setting", "apomdp"]
    shown, code = run_on_terminal(
        ask, tmp_path, until="importing packages", send=signal.SIGINT, plain=False
    )
    assert code in (130, -signal.SIGINT) and HIDE_CURSOR not in shown


@pytest.mark.slow
def test_a_terminal_shows_that_a_users_family_is_imported(tmp_path):
    """Its options are read from it before the command begins."""
    (tmp_path / "own.py").write_text("import time\ntime.sleep(600)\n")
    ask = [*SDM, "solve", "--family", "own:Own"]
    shown, code = run_on_terminal(
        ask, tmp_path, until="importing `own`", send=signal.SIGINT
    )
    assert code in (130, -signal.SIGINT)
    assert shown.index("importing JAX") < shown.index("importing `own`")


@pytest.mark.slow
def test_compiled_programs_are_kept_and_a_damaged_one_is_replaced(tmp_path):
    own = {k: x for k, x in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    own["SDM_CACHE"] = str(tmp_path / "cache")

    def solve():
        ask = [*SDM, "solve", "--tasks", "4", "--json"]
        done = subprocess.run(ask, env=own, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    first = solve()
    programs = list((tmp_path / "cache").glob("jax-*/jit_columns*-cache"))
    assert len(programs) == 1
    second = solve()
    assert second["compile_seconds"] < first["compile_seconds"]
    programs[0].write_bytes(programs[0].read_bytes()[:100])
    third = solve()
    for name in ("value_mean", "random_gap_percent"):
        assert first[name] == second[name] == third[name]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    check = (
        "from sdm.commands.console import keep_compiled_programs\n"
        "import jax; keep_compiled_programs()\n"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    own = {k: x for k, x in os.environ.items() if k != "JAX_ENABLE_COMPILATION_CACHE"}
    for place, wanted in ((tmp_path / "file" / "x", "None"), (tmp_path / "y", "jax-")):
        done = subprocess.run(
            [sys.executable, "-c", check],
            env=own | {"SDM_CACHE": str(place)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert wanted in done.stdout


def test_nested_compilations_count_once():
    assert covered([(0.0, 2.0), (0.5, 1.0), (1.5, 3.0), (5.0, 6.0)]) == 4.0
    assert covered([]) == 0.0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "1 s"), (89.0, "89 s"), (600.0, "10 min"), (7200.0, "2.0 h")],
)
def test_a_duration_has_a_unit(seconds, shown):
    assert duration(seconds) == shown
