"""What cells are made from: tests, datasets and trained policies, each made once.

Datasets and runs are kept in a folder under a hash of everything that decides them, so
that experiments share them and a killed run goes on with what there is.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from sdm.data.benchmark import Benchmark, EvaluationConfig, make_benchmark
from sdm.data.generation import (
    OracleConfig,
    describe,
    write_oracle_dataset,
)
from sdm.experiments.catalogue import CatalogueError, Cell, key_of
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.policies.dpt_samples import DPTConfig
from sdm.storage.files import StorageError, partial_folder, write_atomically
from sdm.storage.provenance import provenance
from sdm.tasks.families import Family, family_of

Progress = Callable[[str, int, int], None]  # a step's name, done, of how much

if TYPE_CHECKING:
    from sdm.policies.cql import CQLConfig  # needs PyTorch

    Config = FinetuneConfig | DPTConfig | CQLConfig
else:
    Config = Any


def evaluation_of(cell: Cell) -> EvaluationConfig:
    """The test of a cell.

    Raises:
        ValueError: if its numbers make no test, or one of them is unknown.

    """
    options, setting = dict(cell.test), cell.test["setting"]
    family = family_of(setting, options)
    given = _known(EvaluationConfig, options, family, cell)
    believed = family
    if cell.data:
        believed = family_of(setting, {**_without_range(options), **cell.data})
    default = {"horizon": 100 if setting == "darkroom" else 10}
    return EvaluationConfig(
        family=family,
        training_family=believed,
        seed=cell.seed,
        **{**default, **given},
    )


def dataset_of(cell: Cell) -> OracleConfig:
    """The dataset that a cell's policy learns from.

    Raises:
        ValueError: if its numbers make no dataset, or one of them is unknown.

    """
    test, setting = evaluation_of(cell), cell.test["setting"]
    family = family_of(setting, {**_without_range(cell.test), **cell.data})
    given = {"believe": test.believe, **_known(OracleConfig, cell.data, family, cell)}
    return OracleConfig(
        family, horizon=test.horizon, seed=cell.seed, setting=setting, **given
    )


def _known(
    config: type, options: Mapping[str, Any], family: Family, cell: Cell
) -> dict[str, Any]:
    """Options of a configuration; the others must be the family's."""
    own = {field.name for field in dataclasses.fields(config)} - {"family"}
    theirs = {field.name for field in dataclasses.fields(family)}
    if unknown := sorted(set(options) - own - theirs):
        raise CatalogueError(
            f"{cell.experiment}: neither a {cell.test['setting']} task nor its "
            f"{config.__name__} has `{unknown[0]}`"
        )
    return {name: value for name, value in options.items() if name in own}


def _without_range(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a test without the range of p, which may be out of distribution."""
    return {name: x for name, x in options.items() if not name.startswith("p_")}


def first_stage(cell: Cell) -> Cell | None:
    """What is trained first where a cell has two stages; None where it has one.

    `first` in its `learn` has a horizon of its own, and what else differs there: short
    episodes teach what long ones hide among a hundred repetitions.
    """
    if "first" not in cell.learn:
        return None
    learn = {name: x for name, x in cell.learn.items() if name != "first"}
    other = dict(cell.learn["first"])
    test = {**cell.test, "horizon": other.pop("horizon")}
    return dataclasses.replace(cell, test=test, learn={**learn, **other})


def training_of(cell: Cell, data: str) -> Config:
    """How the policy of a cell is trained on a dataset, in its only or last stage.

    Raises:
        ValueError: if its numbers make no training, or one of them is unknown.

    """
    learn = {"support": evaluation_of(cell).support, **cell.learn}
    learn.pop("first", None)
    try:
        if cell.kind == "finetune":
            return recipe(data, learn.pop("base"), seed=cell.seed, **learn)
        if cell.kind == "dpt":
            return DPTConfig(data, seed=cell.seed, **learn)
        from sdm.policies.cql import CQLConfig

        learn.pop("support")  # it is shown no demonstrations
        return CQLConfig(data, seed=cell.seed, **learn)
    except (TypeError, KeyError) as error:
        raise CatalogueError(f"{cell.experiment}, {cell.policy}: {error}") from error


@lru_cache(maxsize=2)
def benchmark_of(config: EvaluationConfig) -> Benchmark:
    """The test bed; the last two are remembered, since cells of one test follow."""
    return make_benchmark(config)


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy that is ready to be tested.

    Attributes:
        name: what `evaluate` calls it.
        training: how it was trained, on what, by what code; None if it was not.
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
        self.folder, self._progress = folder.resolve(), progress
        folder.mkdir(parents=True, exist_ok=True)

    def policy(self, cell: Cell) -> Policy:
        """The policy of a cell, trained if need be.

        Raises:
            ValueError, RuntimeError, OSError: as the training does.

        """
        if cell.kind == "baseline":
            return Policy(cell.name)
        if cell.kind == "icl":
            options = {k: x for k, x in cell.learn.items() if k != "base"}
            return Policy(f"icl:{cell.learn['base']}", options=options)
        stage = first_stage(cell)
        first = None if stage is None else self.policy(stage)
        data = self.dataset(dataset_of(cell))
        out, config = self.run_folder(cell), training_of(cell, str(data))
        learned = config
        if first is not None:
            assert isinstance(config, FinetuneConfig)  # others have one stage
            from sdm.llm.runs import weights_folder

            base = weights_folder(Path(first.name), config.lora_rank)
            learned = dataclasses.replace(config, base=str(base))
        begun = out.with_suffix(".json")

        def train(**how: bool) -> None:
            going_on = "resume" in how and partial_folder(out).is_dir()
            if not (going_on and begun.is_file()):
                write_atomically(begun, json.dumps(provenance(cell.kind)) + "\n")
            self._train(learned, out, **how)

        with self._alone(out):
            if not out.is_dir():
                _go_on(out, train)
        training = {
            **_report(out),
            "config": _without_data(config),
            **json.loads(begun.read_text(encoding="utf-8")),
        }
        if first is not None and first.training is not None:
            for name in ("seconds", "tokens"):  # of both stages
                training[name] += first.training[name]
            training["first"] = first.training
        name = str(out) if cell.kind == "finetune" else f"{cell.kind}:{out}"
        return Policy(name, training)

    def run_folder(self, cell: Cell) -> Path:
        """Where the trained policy of a cell is, or will be."""
        data = self._dataset_folder(dataset_of(cell))
        spec: dict[str, Any] = {
            "data": data.name,
            "config": _without_data(training_of(cell, str(data))),
        }
        if stage := first_stage(cell):
            spec["first"] = self.run_folder(stage).name
        return self.folder / f"{cell.kind}-{key_of(spec)}"

    def _dataset_folder(self, config: OracleConfig) -> Path:
        """Where a dataset is, or will be."""
        spec = {k: x for k, x in describe(config).items() if k != "versions"}
        return self.folder / f"data-{key_of(spec)}"

    def dataset(self, config: OracleConfig) -> Path:
        """An oracle dataset."""
        out = self._dataset_folder(config)

        def make(**how: bool) -> None:
            def progress(done: int) -> None:
                self._progress("data", done, config.tasks)

            write_oracle_dataset(config, out, progress=progress, **how)

        with self._alone(out):
            if not out.is_dir():
                _go_on(out, make)
        return out

    @contextmanager
    def _alone(self, out: Path) -> Iterator[None]:
        """Let no other process make the same; the dead hold nothing."""
        with FileLock(out.with_suffix(".lock")):
            yield

    def _train(self, config: Config, out: Path, **how: bool) -> None:
        """Train a policy, or go on with it."""

        def progress(step: int, steps: int) -> None:
            self._progress("training", step, steps)

        if isinstance(config, FinetuneConfig):
            from sdm.llm.finetune import finetune

            finetune(config, out, progress=progress, **how)
        elif isinstance(config, DPTConfig):
            from sdm.policies.dpt_training import train_dpt

            train_dpt(config, out, progress=progress, **how)
        else:
            from sdm.policies.cql import train_cql

            train_cql(config, out, progress=progress, overwrite=True)


def _go_on(out: Path, make: Callable[..., None]) -> None:
    """Make a folder, from where it was left if that fits."""
    try:
        make(resume=True)
    except StorageError:
        if not partial_folder(out).exists():
            raise
        make(overwrite=True)  # begun by another version: nothing to go on with


def _report(out: Path) -> dict[str, Any]:
    """How the training in a finished folder went."""
    for name in ("report.json", "policy.json"):
        if (out / name).is_file():
            found: dict[str, Any] = json.loads((out / name).read_text("utf-8"))
            report = dict(found.get("report", found))
            if "tokens_per_second" in report:
                tokens = report["tokens_per_second"] * report["seconds"]
                report["tokens"] = round(tokens)
            return report
    raise CatalogueError(f"`{out}` does not say how it was trained", "remove it")


def _without_data(config: Config) -> dict[str, Any]:
    """A configuration without the place of its data, which a row says otherwise."""
    return {k: x for k, x in dataclasses.asdict(config).items() if k != "data"}
