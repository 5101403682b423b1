"""`sdm doctor`."""

from sdm.commands.console import emit, pairs_table, say
from sdm.commands.options import Json, Seed
from sdm.commands.progress import doing, progress_bars


def doctor(seed: Seed = 0, as_json: Json = False) -> None:
    """Print versions, devices, memory and disk, and how to fix what is missing.

    `--seed` has no effect: every command accepts it.
    """
    with progress_bars():
        doing("importing JAX and PyTorch")
        from sdm.llm.doctor import examine

        report = examine()
    used = {
        f"{name} uses": x for name, x in report["devices"].items() if name != "cores"
    }
    cores = {"cores": report["devices"]["cores"]}
    shown = {**report["versions"], **used, **cores, **report["machine"]}
    emit(report, as_json, lambda: pairs_table(shown))
    for name, cure in report["missing"].items():
        say(f"missing: {name}, {cure}", "yellow")
    for name, cure in report["problems"].items():
        say(f"{name}: {cure}", "yellow")
    if not report["missing"] and not report["problems"]:
        say("nothing is missing", "green")
