"""`sdm experiment compare`."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from sdm.commands.console import emit, say, user_faults
from sdm.commands.experiment_options import RESULTS, IdleSeed, Profile, Results
from sdm.commands.options import Json
from sdm.commands.progress import doing, progress_bars

if TYPE_CHECKING:
    from rich.table import Table

    from sdm.experiments.rows import Row

OTHERWISE = (
    "the gaps and their difference are each estimated from regrets or from returns, "
    "whichever vary less, so the columns do not subtract"
)


def compare(
    first: Annotated[
        str,
        typer.Argument(
            help="Policy, such as `tiny`, or with values that select its cells, "
            "`tiny,learn.loss=actions`."
        ),
    ],
    second: Annotated[str, typer.Argument(help="Policy to compare with.")],
    experiment: Annotated[
        list[str] | None,
        typer.Option(
            help="Experiment, or a configuration FILE.toml (default all). Repeatable."
        ),
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="Profile of the rows.")
    ] = Profile.laptop,
    measure: Annotated[
        str,
        typer.Option(
            help="Measure to compare: gap, worst_model, alpha_meu or random_model."
        ),
    ] = "gap",
    results: Results = RESULTS,
    seed: IdleSeed = 0,
    as_json: Json = False,
) -> None:
    """Compare two policies in every test that both were run in.

    The difference of their gaps is paired by task and seed. The p-values are of
    two-sided t-tests, also corrected by Holm's method for the number of comparisons
    shown.

    Examples: `sdm experiment compare tiny ce`, `sdm experiment compare
    tiny,learn.loss=all tiny,learn.loss=actions --experiment loss`
    """
    with user_faults(), progress_bars():
        doing("reading the rows")
        from sdm.experiments import comparison
        from sdm.experiments.catalogue import experiment_named, experiments
        from sdm.experiments.rows import known_rows

        chosen = [experiment_named(name) for name in experiment or experiments()]
        if not known_rows(results):
            say(f"`{results}` has no rows: the published rows are compared")
        found = comparison.compare(
            first, second, chosen, profile.value, results, measure
        )
    rows = [comparison.as_row(each) for each in found]
    report = {"first": first, "second": second, "measure": measure}
    emit(
        {**report, "comparisons": rows},
        as_json,
        lambda: comparison_table(first, second, measure, rows),
    )


def comparison_table(
    first: str, second: str, measure: str, rows: "list[Row]"
) -> "Table":
    """Return a table with a line per comparison, and its notes below."""
    from sdm.evaluation.fitting_table import FittingTable

    notes = Counter(row["note"] for row in rows if row["note"])
    notes[OTHERWISE] = sum(map(_estimated_otherwise, rows))
    caption = "\n".join(
        f"{n} of {len(rows)} tests: {why}" for why, n in notes.items() if n
    )
    title = f"{first} against {second}, {measure.replace('_', ' ')} in %"
    spare = ("estimate", "tasks", "experiment", "p")
    table = FittingTable(spare=spare, title=title, caption=caption or None)
    for name in ("experiment", "test"):
        table.add_column(name)
    names = (first, second, "difference", "95 % interval", "p", "p corrected")
    for name in (*names, "seeds", "tasks", "estimate"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row["ci_low"], row["ci_high"]
        table.add_row(
            row["experiment"],
            row["test"],
            "" if row["first"] is None else f"{row['first']:.2f}",
            "" if row["second"] is None else f"{row['second']:.2f}",
            "" if row["difference"] is None else f"{row['difference']:+.2f}",
            "" if low is None else f"{low:+.2f} … {high:+.2f}",
            _probability(row["p"]),
            _probability(row["p_corrected"]),
            str(len(row["seeds"])),
            str(row["tasks"] or ""),
            row["estimator"] or "",
        )
    return table


def _estimated_otherwise(row: "Row") -> bool:
    """Return whether the difference is not that of the gaps, in hundredths."""
    if row["difference"] is None:
        return False
    gaps: float = row["first"] - row["second"]
    return round(abs(gaps - row["difference"]), 2) > 0


def _probability(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
