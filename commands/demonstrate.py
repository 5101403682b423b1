"""`sdm demonstrate`: a dataset of logged episodes, the best of which are to learn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.console import emit, pairs_table, say, start_jax, user_faults
from sdm.commands.family_options import FamilyCommand, make_family
from sdm.commands.options import (
    Context,
    Json,
    Overwrite,
    Seed,
    check_setting,
    given,
)
from sdm.commands.progress import progress_bars
from sdm.commands.solve_options import Setting
from sdm.commands.source_fields import config_fields
from sdm.storage.ownership import check_absent

SHOWN = 2  # demonstrations in a text, by default


class DemonstrateCommand(FamilyCommand):
    """A command with the options of the dataset and of the family."""

    @property
    def configs(self) -> Mapping[str, OptionGroup]:
        """Return the options of the dataset."""
        fields = config_fields("data/logged_dataset.py", "LoggedDatasetConfig")
        return {"config": group_of(fields)}


def demonstrate(
    context: Context,
    logs: Annotated[
        Path, typer.Argument(help="Logged episodes, as those of `sdm estimate`.")
    ],
    family: Annotated[
        str,
        typer.Option(help="Folder that `sdm estimate --out` made from these logs."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    setting: Setting = "",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a dataset of logged episodes, from which a language model learns the best.

    `sdm finetune --data OUT` learns the actions of the best episodes of each training
    task. `--score regret` solves the estimated tasks to find the best ones.

    Example: `sdm demonstrate visits.csv --family sites --best 0.25 --out shown`
    """
    with user_faults(), progress_bars() as bar:
        check_absent(out, overwrite=overwrite)
        start_jax()
        from sdm.data.estimation.files import digest_of
        from sdm.data.logged_dataset import LoggedDatasetConfig, write_logged_dataset
        from sdm.data.logged_episodes import training_episodes
        from sdm.data.logs import read_logs
        from sdm.tasks.family import KINDS

        config = LoggedDatasetConfig(**given(context, "config").merged(None))
        posed = make_family(family, given(context, "family").merged(None))
        able = [kind for kind in KINDS if kind in posed.kinds]
        kind = check_setting(setting or able[0], posed)
        bar("reading", 0, 2)
        found = read_logs(logs)
        bar("writing", 1, 2)
        episodes, params = training_episodes(
            found, posed, kind=kind, horizon=config.horizon
        )
        report = write_logged_dataset(
            out,
            episodes,
            posed,
            params,
            config,
            kind=kind,
            seed=seed,
            logs={"path": str(logs), "sha256": digest_of(logs)},
            overwrite=overwrite,
        )
        bar("writing", 2, 2)
        for text in _warnings(report, folder=Path(family), logs=logs):
            say(f"warning: {text}", "yellow")
    report = {"logs": str(logs), "family": family, **report, "out": str(out)}
    emit(
        report,
        as_json,
        lambda: pairs_table({k.replace("_", " "): x for k, x in report.items()}),
    )


def _warnings(report: Mapping[str, Any], *, folder: Path, logs: Path) -> list[str]:
    """Return what a user should know of a dataset before a training."""
    from sdm.data.off_policy.learned_from import made_from

    found, fewest = [], report["fewest_best_of_a_task"]
    if fewest <= SHOWN:
        found.append(
            f"best episodes of a task: {fewest}, but a text of {SHOWN} demonstrations "
            f"and a query needs {SHOWN + 1}: raise `--best`, or train with `--support "
            f"{fewest - 1}`"
        )
    if folder.is_dir() and not made_from(folder, logs):
        found.append(f"the models in `{folder}` were not made from these very logs")
    return found
