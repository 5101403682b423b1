"""The results of Zhang, Aghaei, Saghafian (2026), for comparable tests.

The values are in `paper.toml`. Gaps are in % of the optimal return.
"""

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sdm.data.benchmark import EvaluationConfig
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.registry import families, reference_of

SUPPORT = 2  # demonstrations in the paper


@cache
def published() -> dict[str, Any]:
    """Return the file's tables: `words` for policies, and `tests`."""
    path = Path(__file__).with_name("paper.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def paper_rows(
    config: EvaluationConfig, trained: TaskFamily | None = None
) -> Mapping[str, str]:
    """Return the paper's gaps in a comparable test by policy; empty if it has none.

    Args:
        config: configuration of the test.
        trained: family of the training tasks; `config.prior_family` if not given.

    """
    if config.support != SUPPORT:
        return {}
    for test in published()["tests"]:
        shown = test.get("demonstrations", "optimal")
        if (config.kind, config.demonstrations) == (test["kind"], shown):
            elsewhere = test.get("trained_elsewhere", False)
            known = config.family if elsewhere else trained or config.prior_family
            if _is_like(config.family, test) and _is_like(known, test):
                rows: Mapping[str, str] = test["gaps"].get(str(config.horizon), {})
                return rows
    return {}


def _is_like(family: TaskFamily, test: Mapping[str, Any]) -> bool:
    """Return whether a family's options are those of a test."""
    if reference_of(family) != test["family"]:
        return False
    expected = families()[test["family"]](**test.get("options", {})).config()
    found = family.config()
    return all(found[name] == expected[name] for name in found.keys() - test["ignores"])


def paper_column(
    rows: Mapping[str, str], policies: Mapping[str, str]
) -> dict[str, str]:
    """Return the paper's gap for each policy that the paper reports.

    Args:
        rows: rows from `paper_rows`.
        policies: name of the paper's policy to compare with, by policy.

    """
    return {name: rows[kind] for name, kind in policies.items() if kind in rows}


def caption(rows: Mapping[str, str], family: TaskFamily, kind: Kind) -> str:
    """Return the paper's gaps in one line, or a note on its tests of the family."""
    if rows:
        words = published()["words"]
        values = ", ".join(f"{words[name]} {gap}" for name, gap in rows.items())
        return f"The paper, for orientation: {values}"
    about = _reported(reference_of(family), kind)
    return f"The paper reports no such test, but {about}" if about else ""


def _reported(family: str, kind: Kind) -> str:
    tests: Iterable[Mapping[str, Any]] = published()["tests"]
    found = [t for t in tests if (t["family"], t["kind"]) == (family, kind)]
    return next((str(test["about"]) for test in found if "about" in test), "")
