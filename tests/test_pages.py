"""The blocks of Python of the README and of the pages run."""

import subprocess
import sys

import pytest
from docs_support import ROOT, blocks, run_command, run_python, save_files
from random_models import tiger

from sdm.solvers_jax import save_pomdp

# Pages whose blocks other tests run, and check the results of.
ELSEWHERE = {
    "docs/tutorial.md",
    "docs/tutorial_logs.md",
    "docs/results.md",
    "docs/solvers/depth_first.md",
    "docs/solvers/momdp.md",
    "docs/solvers/stage_dependent.md",
}
SLOW = {
    "README.md",
    "docs/datasets.md",
    "docs/families.md",
    "docs/feedback.md",
    "docs/off_policy.md",
    "docs/solvers/README.md",
    "docs/solvers/acting.md",
    "docs/solvers/files.md",
    "docs/solvers/methods.md",
    "docs/solvers/rectangular.md",
    "docs/solvers/solutions.md",
}
# These leave modules or plugins behind, which other tests must not see.
ALONE = {"docs/families.md", "docs/feedback.md", "docs/solvers/methods.md"}
SOLVED = """
import jax, jax.numpy as jnp
from sdm.solvers_jax import load_pomdp, solve
jax.config.update("jax_enable_x64", True)
solution = solve(load_pomdp("tiger.POMDP"), horizon=2)
beliefs = jnp.array([[0.5, 0.5]])
"""
# What a page takes as given.
BEFORE = {
    "docs/datasets.md": "import pyarrow.parquet",
    "docs/logs.md": """
from pathlib import Path
table = "episode,step,observation,action,reward\\na,0,mild,wait,0.2\\n"
Path("visits.csv").write_text(table)
""",
    "docs/off_policy.md": """
from sdm.data.logs import read_logs
from sdm.data.logs.write import write_logs
write_logs(read_logs("oracle"), "visits.parquet")
""",
    "docs/solvers/README.md": SOLVED,
    "docs/solvers/files.md": """
import numpy as np
P, r, mu = np.full((2, 3, 2), 0.5), np.zeros((2, 3)), np.full(2, 0.5)
""",
    "docs/solvers/solutions.md": SOLVED,
}
SOLVE = "sdm solve --tasks 3 --horizon 4 --trajectories 3 --out oracle"
COMMANDS = {
    "docs/datasets.md": (SOLVE, "sdm export oracle --to minari --out minari"),
    "docs/off_policy.md": (SOLVE,),
}


def pages():
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in found:
        page = path.relative_to(ROOT).as_posix()
        if page not in ELSEWHERE and blocks(page, "python"):
            yield pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])


@pytest.mark.parametrize("page", list(pages()))
def test_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_pomdp(tiger(), "tiger.POMDP")
    save_files(page)
    for command in COMMANDS.get(page, ()):
        run_command(command)
    names = {"__name__": "page"}
    run_python(BEFORE.get(page, ""), names)
    given = [text for _, title, text in blocks(page, "python") if not title]
    if page in ALONE:
        subprocess.run([sys.executable, "-c", "\n".join(given)], check=True)
        return
    for text in given:
        run_python(text, names)
