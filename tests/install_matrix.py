"""Install sdm in fresh environments, and check that each works: `make test-install`.

An environment is a Python, a set of extras, a source (wheel or source distribution) and
a choice of versions: the newest, or the lowest that `pyproject.toml` allows for direct
dependencies. Environments are made one after the other, and removed. The result is a
table in Markdown.

PyTorch is installed first, in the version of `constraints.txt`: the default build of
Linux has gigabytes of CUDA. So it is the one package whose lowest version is not tried.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
TORCH = next(
    line.strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.startswith("torch==")
)
EXTRA_IMPORTS = "import altair, gymnasium, h5py, jinja2, vl_convert"
EXTRAS = ("", "llm", "all")
HEAD = "Python | extra | from | versions | install, s | import, s | help, s | checks"
OURS = ("PYTHONPATH", "XLA_FLAGS")  # variables that would leak into environments


@dataclass(frozen=True)
class Case:
    """One environment.

    Attributes:
        extra: extra of the package; "" for the core.
        source: `wheel` or `sdist`.
        versions: `newest` or `lowest`.

    """

    extra: str
    source: str
    versions: str = "newest"

    @property
    def name(self) -> str:
        """Return a name for the command line and the table."""
        return f"{self.extra or 'core'}-{self.source}-{self.versions}"


CASES = (
    *(Case(extra, source) for extra in EXTRAS for source in ("wheel", "sdist")),
    *(Case(extra, "wheel", "lowest") for extra in EXTRAS),
)


@dataclass
class Result:
    """What was measured in an environment, and what failed first."""

    case: Case
    python: str
    install: float = 0.0
    imports: float = 0.0
    help: float = 0.0
    failure: str = ""
    checks: list[str] = field(default_factory=list)


def run(*command: str | Path, cwd: Path, seconds: float = 1800) -> str:
    """Return the output of a command.

    Raises:
        RuntimeError: if it fails, with the end of its output.

    """
    plain = {k: x for k, x in os.environ.items() if k not in OURS}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=plain | {"SDM_CACHE": str(cwd / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        raise RuntimeError(f"`{' '.join(map(str, command[1:4]))}`: {said}")
    return done.stdout


def built(folder: Path) -> dict[str, Path]:
    """Build the wheel and the source distribution of the committed files."""
    source = folder / "source"
    run("git", "clone", "-q", ROOT, source, cwd=folder)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", source, cwd=folder)
    return {
        "wheel": next((folder / "dist").glob("*.whl")),
        "sdist": next((folder / "dist").glob("*.tar.gz")),
    }


def works(python: str) -> bool:
    """Return whether an interpreter starts; the shim of a version manager may not."""
    command = [python, "-c", "import ensurepip, venv"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def requirements(extra: str) -> list[str]:
    """Return the direct dependencies of the package with an extra, as in pyproject."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, found, left = about["optional-dependencies"], about["dependencies"], [extra]
    while left:
        for text in extras.get(left.pop(), ()):
            if inner := re.fullmatch(r"sdm-llm\[(.*)\]", text):
                left += inner[1].split(",")
            else:
                found = [*found, text]
    return list(found)


def install(case: Case, python: str, package: Path, folder: Path) -> Path:
    """Create the environment of a case, and return its folder of programs."""
    wanted = f"{package}[{case.extra}]" if case.extra else str(package)
    uv, env = shutil.which("uv") or Path(sys.executable).with_name("uv"), folder / "env"
    found = shutil.which(python) or python
    run(uv, "venv", "-q", "--seed", "-p", found, env, cwd=folder)
    if case.extra:  # by pip, whose settings choose the build
        run(env / "bin/python", "-m", "pip", "install", "--quiet", TORCH, cwd=folder)
    into: list[str | Path] = [uv, "pip", "install", "-q", "-p", env]
    if case.versions == "lowest":
        direct = [x for x in requirements(case.extra) if not x.startswith("torch")]
        # The dependencies of a wheel are not direct ones: they go beside it.
        into += ["--resolution", "lowest-direct", *direct]
    if case.extra:
        into.append(TORCH)
    run(*into, wanted, cwd=folder)
    return env / "bin"


def check(result: Result, programs: Path, folder: Path) -> None:
    """Time imports and help, and use what the extra promises.

    Raises:
        RuntimeError: if something fails.

    """
    python, sdm = programs / "python", programs / "sdm"
    run(python, "-c", "import sdm.solvers_jax", cwd=folder)  # writes bytecode
    result.imports = fastest(python, "-c", "import sdm.solvers_jax", cwd=folder)
    result.help = fastest(sdm, "--help", cwd=folder)
    doctor = json.loads(run(sdm, "doctor", "--json", cwd=folder))
    bad = {n: x for n, x in doctor["problems"].items() if "too old" in x}
    if bad:
        raise RuntimeError(f"`sdm doctor`: {bad}")
    solved = json.loads(run(sdm, "solve", "--tasks", "10", "--json", cwd=folder))
    if not 40 < solved["random_gap_percent"] < 75:
        raise RuntimeError(f"`sdm solve`: {solved}")
    result.checks += ["doctor", "solve"]
    hidden = ["--setting", "pomdp", "--tasks", "2", "--horizon", "3", "--json"]
    run(sdm, "solve", *hidden, cwd=folder)
    run(sdm, "theory", "flow", "--dim", "2", "--kappa", "1", "--json", cwd=folder)
    result.checks += ["pomdp", "theory"]
    if not result.case.extra:
        run(
            python,
            "-c",
            "import importlib.util as u; assert not u.find_spec('torch')",
            cwd=folder,
        )
        result.checks.append("no torch")
        return
    sizes = ["--tasks", "12", "--horizon", "3", "--trajectories", "4"]
    run(sdm, "solve", *sizes, "--out", "data", cwd=folder)
    tuned = ["--data", "data", "--base", "tiny", "--out", "run", "--json"]
    run(sdm, "finetune", *tuned, "--texts-per-task", "1", cwd=folder)
    test = ["--policy", "run", "--tasks", "2", "--horizon", "3", "--json"]
    run(sdm, "eval", *test, cwd=folder)
    result.checks += ["finetune", "eval"]
    if result.case.extra == "all":
        run(sdm, "solve", "--tasks", "2", "--plot", "plot.png", "--json", cwd=folder)
        run(sdm, "solve", "--family", "gymnasium", "--help", cwd=folder)
        run(
            python,
            "-c",
            EXTRA_IMPORTS,
            cwd=folder,
        )
        result.checks += ["plot", "extras"]


def fastest(*command: str | Path, cwd: Path) -> float:
    """Return the shortest time of three runs of a command, in seconds."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run(*command, cwd=cwd)
        times.append(time.perf_counter() - start)
    return min(times)


def tried(case: Case, python: str, package: Path) -> Result:
    """Install a case in a temporary folder, check it, and remove it."""
    result = Result(case, python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            start = time.perf_counter()
            programs = install(case, python, package, folder)
            result.install = time.perf_counter() - start
            check(result, programs, folder)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            result.failure = str(error)
    return result


def row(each: Result) -> str:
    """Return a result as a row of a table in Markdown."""
    case, works = each.case, ", ".join(each.checks)
    cells = (
        *(each.python, case.extra or "none", case.source, case.versions),
        *(f"{each.install:.0f}", f"{each.imports:.1f}", f"{each.help:.2f}"),
        f"**failed**: {each.failure}" if each.failure else works,
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Try the cases with every Python that is found, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="*", help="names of cases, such as core-wheel-newest"
    )
    parser.add_argument("--python", nargs="*", default=PYTHONS, help="interpreters")
    options = parser.parse_args()
    chosen, pythons = options.only, [x for x in options.python if works(x)]
    chosen_cases = [c for c in CASES if not chosen or c.name in chosen]
    failed = False
    print(f"| {HEAD} |\n{'|---' * (HEAD.count('|') + 1)}|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        packages = built(Path(name))
        for python in pythons:
            for case in chosen_cases:
                result = tried(case, python, packages[case.source])
                print(row(result), flush=True)  # a row at once: all of them take hours
                failed |= bool(result.failure)
    return failed


if __name__ == "__main__":
    sys.exit(main())
