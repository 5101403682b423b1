"""What cells are made from: tests, datasets and trained policies, each made once.

Datasets and runs are kept in a folder under a hash of what decides them, so that
experiments share them and a killed run goes on with what there is.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from sdm.experiments.catalogue import Cell, key_of
from sdm.llm.test_bed import EvaluationConfig, TestBed, make_test_bed
from sdm.solvers_jax.families import Family, family_of
from sdm.solvers_jax.oracle_data import OracleConfig, write_oracle_dataset
from sdm.solvers_jax.shards import write_atomically

Progress = Callable[[str, int, int], None]  # a step's name, done, of how much
SHORT = {"darkroom": 100}  # the default horizon, where it is not 10


def evaluation_of(cell: Cell) -> EvaluationConfig:
    """The test of a cell.

    Raises:
        ValueError: if its numbers make no test.

    """
    options = dict(cell.test)
    setting = options["setting"]
    names = {f.name for f in dataclasses.fields(EvaluationConfig)} - {"family"}
    given = {name: value for name, value in options.items() if name in names}
    believed = {**_without_range(options), **cell.data}
    return EvaluationConfig(
        family=family_of(setting, options),
        training_family=family_of(setting, believed if cell.data else options),
        seed=cell.seed,
        **{"horizon": SHORT.get(setting, 10), **given},
    )


def _without_range(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a test without the range of p, which may be out of distribution."""
    return {name: x for name, x in options.items() if not name.startswith("p_")}


def data_of(cell: Cell) -> OracleConfig:
    """The dataset that a cell's policy learns from."""
    test, setting = evaluation_of(cell), cell.test["setting"]
    family: Family = family_of(setting, {**_without_range(cell.test), **cell.data})
    return OracleConfig(
        family,
        test.horizon,
        cell.data["tasks"],
        cell.data["trajectories"],
        seed=cell.seed,
        setting=setting,
        random_trajectories=cell.data.get("random_trajectories", 0),
    )


@lru_cache(maxsize=2)
def test_bed_of(config: EvaluationConfig) -> TestBed:
    """The test bed; the last two are remembered, since cells of one test follow."""
    return make_test_bed(config)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy that is ready to be tested.

    Attributes:
        name: what `evaluate` calls it.
        training: how it was trained; None if it was not.
        options: of `evaluate`.

    """

    name: str
    training: dict[str, Any] | None = None
    options: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


class Workshop:
    """Makes what cells need, in one folder.

    Attributes:
        folder: where datasets and runs are kept.

    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        """Begin with what the folder has."""
        self.folder, self._progress = folder, progress
        folder.mkdir(parents=True, exist_ok=True)

    def policy(self, cell: Cell) -> Policy:
        """The policy of a cell, trained if need be.

        Raises:
            ValueError, RuntimeError, OSError: as the training does.

        """
        if cell.kind == "baseline":
            return Policy(cell.policy)
        if cell.kind == "icl":
            options = {k: x for k, x in cell.learn.items() if k != "base"}
            return Policy(f"icl:{cell.learn['base']}", options=options)
        data = self.dataset(data_of(cell))
        learn = {"support": cell.test.get("support", 2), **cell.learn}
        if cell.kind == "cql":
            learn.pop("support")
        spec = {
            "kind": cell.kind,
            "learn": learn,
            "data": data.name,
            "seed": cell.seed,
        }
        out = self.folder / f"{cell.kind}-{key_of(spec)}"
        report = out.with_suffix(".json")
        with self._alone(out):
            if not (out.is_dir() and report.is_file()):
                trained = self._train(cell, learn, data, out)
                write_atomically(report, json.dumps(trained, indent=2) + "\n")
        training: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        name = str(out) if cell.kind == "finetune" else f"{cell.kind}:{out}"
        return Policy(name, training)

    def dataset(self, config: OracleConfig) -> Path:
        """An oracle dataset."""
        spec = {**dataclasses.asdict(config), "family": str(config.family)}
        out = self.folder / f"data-{key_of(spec)}"
        with self._alone(out):
            if not out.is_dir():
                write_oracle_dataset(
                    config,
                    out,
                    resume=True,
                    progress=lambda done: self._progress("data", done, config.tasks),
                )
        return out

    def _alone(self, out: Path) -> FileLock:
        """While it is held no other process makes the same; the dead hold nothing."""
        return FileLock(out.with_suffix(".lock"))

    def _train(
        self, cell: Cell, learn: dict[str, Any], data: Path, out: Path
    ) -> dict[str, Any]:
        """Train a policy, or go on with it; how it went."""

        def progress(step: int, steps: int) -> None:
            self._progress("training", step, steps)

        # One without its report was killed between the two: it is made again.
        options: dict[str, Any] = {"resume": not out.exists(), "overwrite": True}
        if cell.kind == "finetune":
            from sdm.llm.finetune import finetune
            from sdm.llm.recipes import recipe

            config = recipe(str(data), learn.pop("base"), seed=cell.seed, **learn)
            report = finetune(config, out, progress=progress, **options)
            how = dataclasses.asdict(config)
            done = dataclasses.asdict(report)
            done["tokens"] = round(report.tokens_per_second * report.seconds)
        elif cell.kind == "dpt":
            from sdm.baselines.dpt_samples import DPTConfig
            from sdm.baselines.dpt_training import train_dpt

            dpt = DPTConfig(str(data), seed=cell.seed, **learn)
            run = train_dpt(dpt, out, progress=progress, **options)
            how, done = dataclasses.asdict(dpt), dict(run.about.report)
        else:
            from sdm.baselines.cql import CQLConfig, train_cql

            cql = CQLConfig(str(data), seed=cell.seed, **learn)
            run = train_cql(cql, out, progress=progress, overwrite=True)
            how, done = dataclasses.asdict(cql), dict(run.about.report)
        how.pop("data")  # the row says what it is made of
        return {**done, "config": how}
