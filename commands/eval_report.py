"""Tables of `sdm eval`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.tasks.family import TaskFamily


class Players:
    """A benchmark, the policies to evaluate on it, and their reference policy."""

    def __init__(
        self, test: "EvaluationConfig", names: list[str], reference: str | None
    ) -> None:
        self.test, self.names, self.reference = test, names, reference
        self.title = f"{test.family.name} {test.kind}"


def table_of(players: Players, report: Mapping[str, Any]) -> Any:
    """Return the table of a benchmark."""
    from sdm.evaluation.gap_table import gap_table
    from sdm.evaluation.paper import caption, paper_column
    from sdm.policies.spec import parse_policy

    like = {name: parse_policy(name).like for name in report["policies"]}
    test = players.test
    return gap_table(
        report["policies"],
        paper_column(report["paper"], like),
        reference=players.reference,
        test=_words(test),
        caption=caption(report["paper"], test.family, test.kind) or None,
    )


def _words(test: "EvaluationConfig") -> str:
    """Return the benchmark's title: family, non-default options and sizes."""
    from sdm.tasks.registry import reference_of

    parts = [f"{reference_of(test.family)}, {test.kind}", f"T = {test.horizon}"]
    parts += [f"{name} = {value}" for name, value in _changed(test.family)]
    return ", ".join([*parts, f"{test.tasks} tasks x {test.trajectories} episodes"])


def _changed(family: "TaskFamily") -> list[tuple[str, Any]]:
    """Return the family's options that differ from the defaults of its class."""
    try:
        plain = type(family)().config()
    except TypeError:  # it needs an argument, which its reference contains
        return []
    return [(k, x) for k, x in family.config().items() if plain.get(k) != x]
