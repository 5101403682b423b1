"""Benchmarks that the options of `sdm eval` describe."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.config_command import OptionGroup, group_of
from sdm.commands.console import say
from sdm.commands.family_options import FamilyCommand, make_family
from sdm.commands.options import (
    ALL,
    KINDS,
    Context,
    check_setting,
    given,
    warn_of_idle_options,
)
from sdm.commands.source_fields import config_fields

if TYPE_CHECKING:
    from sdm.data.benchmark import EvaluationConfig
    from sdm.tasks.family import TaskFamily


class EvalCommand(FamilyCommand):
    """Command with the options of `EvaluationConfig`, the family and its prior."""

    other = "prior"

    @property
    def configs(self) -> Mapping[str, OptionGroup]:
        """Return the options of the benchmark."""
        own = ("family", "kind", "seed", "training_family")
        fields = config_fields("data/benchmark.py", "EvaluationConfig", without=own)
        return {"config": group_of(fields)}


def benchmarks(
    context: Context, family: str, setting: str, seed: int, file: Path | None
) -> list["EvaluationConfig"]:
    """Return the benchmarks that the options describe."""
    found = []
    values = given(context, "config").merged(file)
    for posed in _families(context, family):
        able = [kind for kind in KINDS if kind in posed.kinds]
        for kind in able if setting == ALL else [setting or able[0]]:
            found.append(_test(context, family, posed, kind, seed, values))
    return found


def _families(context: Context, family: str) -> list["TaskFamily"]:
    """Return the family on the command line, or every one that can be used."""
    if family != ALL:
        return [make_family(family, given(context, "family").merged(None))]
    return usable_families()


def usable_families() -> list["TaskFamily"]:
    """Return every registered family that needs no argument.

    Those that need a package that is not installed are skipped and reported.
    """
    from sdm.tasks.registry import FamilyError, families

    found = []
    for name, factory in families().items():
        try:
            _ = factory().spaces
        except TypeError:  # it needs an argument
            continue
        except FamilyError as error:
            say(f"skipped: {error}: {error.hint}", "yellow")
            continue
        found.append(make_family(name, {}))
    return found


def _test(
    context: Context,
    family: str,
    posed: "TaskFamily",
    setting: str,
    seed: int,
    values: Mapping[str, Any],
) -> "EvaluationConfig":
    """Return one benchmark."""
    kind = check_setting(setting, posed)
    if family != ALL:
        warn_of_idle_options(context, kind, posed)
    from sdm.data.benchmark import EvaluationConfig

    default, believed = posed.defaults, posed
    if family != ALL and (changed := given(context, "prior").merged(None)):
        believed = make_family(family, given(context, "family").merged(None) | changed)
    sizes = {
        "horizon": default.horizon,
        "tasks": default.test_tasks or posed.available("test") or 1,
        "trajectories": default.test_trajectories,
        "support": default.support,
    }
    return EvaluationConfig(
        family=posed,
        training_family=believed,
        kind=kind,
        seed=seed,
        **(sizes | dict(values)),
    )
