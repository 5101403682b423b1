"""Tables of `sdm eval`."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.tasks.family import TaskFamily

# Said of ambiguity sets without a second model.
ONE_MODEL = (
    "One model in each ambiguity set: the worst, the α-mixture and a random model are "
    "this one, so their gaps are not computed; raise `--K`"
)


class Players:
    """A benchmark, the policies to evaluate on it, and their reference policy."""

    def __init__(
        self, test: "EvaluationConfig", names: list[str], reference: str | None
    ) -> None:
        self.test, self.names, self.reference = test, names, reference
        self.title = f"{test.family.name} {test.kind}"


def table_of(players: Players, report: Mapping[str, Any]) -> Any:
    """Return the table of a benchmark."""
    from sdm.evaluation.gap_table import IN_MODELS, gap_table
    from sdm.evaluation.paper import caption

    test, rows = players.test, report["policies"]
    notes = [caption(report["paper"], test.family, test.kind)]
    measured = {f"{name}_gap_percent" for name in IN_MODELS}
    if test.kind == "apomdp" and not any(measured & set(row) for row in rows.values()):
        notes.append(ONE_MODEL)
    return gap_table(
        rows,
        _paper_column(test, rows),
        reference=players.reference,
        test=_words(test),
        caption="\n".join(filter(None, notes)) or None,
    )


def _paper_column(test: "EvaluationConfig", names: Iterable[str]) -> dict[str, str]:
    """Return the paper's gap for each policy, in a test like that of the policy.

    A policy that was trained on other tasks has another test than the other policies.
    """
    from sdm.evaluation.paper import paper_column, paper_rows
    from sdm.policies.spec import parse_policy, training_family_of

    found: dict[str, str] = {}
    for name in names:
        spec = parse_policy(name)
        rows = paper_rows(test, training_family_of(spec))
        found |= paper_column(rows, {name: spec.like})
    return found


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
