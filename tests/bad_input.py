"""Call commands with bad values, and say what is wrong with how they refuse them."""

import contextlib
import io
import os
import re
import signal
import sys
import warnings
from pathlib import Path

import typer

from sdm.cli import app, main
from sdm.commands.config_command import ConfigCommand

HANGS = 120  # seconds after which a call counts as hanging

NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e400", "9" * 25, "-" + "9" * 25)
TEXTS = ("", " ", "x", "ünï cödé", "a\nb", "../..", "[red]", "-", "%s{0}", "icl:", ":")
FOR_TYPES = {
    "int": (*NUMBERS, "1.5", "", "x", "0x10", "1_0"),
    "float": (*NUMBERS, "", "x", "1,5"),
    "bool": (),
    "flag": (),
}


def commands():
    """Return every command by its words."""

    def leaves(words, group):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from leaves((*words, name), command)
            else:
                yield (*words, name), command

    return dict(leaves((), typer.main.get_command(app)))


def options(words):
    """Return the options and arguments of a call, the added ones included."""
    name = next(x for x in commands() if words[: len(x)] == list(x))
    command = commands()[name]
    found = list(command.params)
    if isinstance(command, ConfigCommand):
        groups = command.dynamic(words[len(name) :]).values()
        found += [p for group in groups for p in group.parameters]
    return found


def is_argument(option):
    """Return whether a parameter is an argument, without a name on the command line."""
    return not option.opts[0].startswith("-")


def kind_of(option):
    """Return the type of an option's values; typer has changed how it keeps them."""
    described = getattr(option, "type_descriptor", None)
    if described is not None:
        return getattr(described.annotation, "__name__", "str")
    return {"integer": "int", "boolean": "bool"}.get(option.type.name, option.type.name)


def bad_values(option, files):
    """Return bad values of an option: of its type, and files if it can name one."""
    if getattr(option, "is_flag", False):
        return ()
    kind = kind_of(option)
    if kind != "Path":
        files = files[:4]
    return FOR_TYPES.get(kind, (*TEXTS, *map(str, files)))


class HangError(BaseException):
    """A call that takes too long."""


def call(words):
    """Run a command in this process; return exit code, stdout and stderr."""

    def hang(*_):
        raise HangError

    out, err = io.StringIO(), io.StringIO()
    before = (
        sys.argv,
        signal.getsignal(signal.SIGINT),
        signal.signal(signal.SIGALRM, hang),
    )
    sys.argv = ["sdm", *words]
    signal.alarm(HANGS)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            main()
    except SystemExit as stopped:
        return stopped.code or 0, out.getvalue(), err.getvalue()
    finally:
        signal.alarm(0)
        sys.argv, sigint, sigalrm = before
        signal.signal(signal.SIGINT, sigint)
        signal.signal(signal.SIGALRM, sigalrm)
    raise AssertionError("`main` always exits")


INTERNAL = re.compile(r"^error: \w*(Error|Exception|Warning)\b:", re.MULTILINE)


def names_cause(err, option, value):
    """Return whether an error names an option, as in Python or here, or its value."""
    shown = option.metavar or ""  # of an argument
    name = f"{max(option.opts, key=len)} {option.name} {shown}".lower()
    words = [word for word in re.split(r"[\W_]+", name) if len(word) > 1]
    if any(word in err.lower() for word in words) or len(value.splitlines()) > 1:
        return True
    letters = [flag for flag in option.opts if len(flag.strip("-")) == 1]
    if any(re.search(rf"{x}\b|\b{x.strip('-')} = ", err) for x in letters):
        return True
    # An empty path is the working folder; folders are also named in full.
    values = {value, value.strip() or ".", os.path.abspath(value)}
    return any(
        f"`{x}" in err or repr(x) in err or (len(x) > 1 and x in err) for x in values
    )


def fault_of(words, cause=None):
    """Describe what is wrong with a command's answer to a bad call; "" if nothing.

    Args:
        words: the call.
        cause: the option with the bad value, and the value, which the error must name.

    """
    try:
        code, out, err = call(words)
    except HangError:
        return "it hangs"
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if "Traceback" in err + out:
        return "it shows a traceback"
    if code == 0:
        return ""
    if code not in (1, 2):
        return f"it exits with {code}"
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    if len(lines) != 1:
        return f"it prints {len(lines)} error lines: {err!r}"
    if INTERNAL.search(err):
        return f"an internal error: {lines[0]}"
    if out:
        return f"it prints {out!r} to stdout"
    if cause and not names_cause(err, *cause):
        return f"it names neither the option nor the value: {lines[0]}"
    return ""


def write_files(folder: Path) -> list[Path]:
    """Write files that no command can read, and return their paths."""
    folder.mkdir(exist_ok=True)
    contents = {
        "empty": b"",
        "garbage": bytes(range(256)) * 8,
        "zip.npz": b"PK\x03\x04" + bytes(60),
        "list.yaml": b"- 1\n- 2\n",
        "deep.yaml": b"[" * 5000,
        "number.json": b"3",
        "deep.json": b"[" * 100_000,
        "twice.yaml": b"a: &a [1,1]\nb: *a\n",
        "bom.csv": b"\xef\xbb\xbfepisode,step\n",
        "header.csv": b"episode,step,observation,action,reward\n",
        "short.csv": b"episode,step,observation,action,reward\n1,2\n",
        "empty.jsonl": b"",
        "number.jsonl": b"3\n",
        "empty.parquet": b"",
        "magic.parquet": b"PAR1" + bytes(20) + b"PAR1",
        "empty.POMDP": b"",
        "garbage.POMDP": bytes(range(256)),
        "empty.pomdpx": b"",
        "other.pomdpx": b"<a/>",
        "empty.npz": b"",
        "list.toml": b"a = [",
        "empty.toml": b"",
        "array.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, "
        b"'shape': (1,), }" + bytes(40),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir(exist_ok=True)
    return [folder / "missing", folder / "folder", *(folder / x for x in contents)]
