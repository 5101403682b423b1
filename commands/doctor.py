"""`sdm doctor`."""

from sdm.commands.console import emit, pairs_table, say
from sdm.commands.options import Json, Seed


def doctor(seed: Seed = 0, as_json: Json = False) -> None:
    """Print versions and devices, and how to install missing packages.

    `--seed` has no effect: every command accepts it.
    """
    from sdm.llm.doctor import examine

    report = examine()
    emit(
        report,
        as_json,
        lambda: pairs_table({**report["versions"], **report["devices"]}),
    )
    for name, cure in report["missing"].items():
        say(f"missing: {name}, {cure}", "yellow")
