"""`finetune`: a language model that is fine-tuned on the dataset of a cell."""

import dataclasses
from pathlib import Path
from typing import Any

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.learned import Learned, invalid_options, training_options
from sdm.experiments.origin import ReadyPolicy, register_origin
from sdm.experiments.spec import Cell, ExperimentError, Grid, Options
from sdm.llm.recipes import recipe


@register_origin
class Finetuned(Learned):
    """A base model, fine-tuned in one stage or two; see `first_stage`."""

    language_model = True

    def __init__(self) -> None:
        """Set the name."""
        super().__init__("finetune")

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return all options; the grid can set the number of texts of all tasks."""
        if grid.texts:
            texts = _share(grid.texts, data["tasks"])
            learn = {**learn, "texts_per_task": texts}
        return learn, data

    def policy(self, cell: Cell, artifacts: Artifacts) -> ReadyPolicy:
        """Return the model of the last stage, with the sums over both stages."""
        ready, stage = super().policy(cell, artifacts), first_stage(cell)
        if stage is None:
            return ready
        last, first = ready.training, self.policy(stage, artifacts).training
        assert last is not None and first is not None
        sums = {name: last[name] + first[name] for name in ("seconds", "tokens")}
        return dataclasses.replace(ready, training={**last, **sums, "first": first})

    def policy_name(self, out: Path) -> str:
        """Return the run folder."""
        return str(out)

    def spec(self, cell: Cell, artifacts: Artifacts) -> Options:
        """Return what determines a training, and the run of its first stage."""
        spec, stage = super().spec(cell, artifacts), first_stage(cell)
        if stage is not None:
            spec["first"] = self.folder(stage, artifacts).name
        return spec

    def config(self, cell: Cell, data: str) -> Any:
        """Return the configuration of the last stage; see `Learned.config`."""
        learn = training_options(cell)
        learn.pop("first", None)
        with invalid_options(cell):
            return recipe(data, learn.pop("base"), seed=cell.seed, **learn)

    def train(
        self, cell: Cell, artifacts: Artifacts, config: Any, out: Path, **how: bool
    ) -> None:
        """Fine-tune the base, or the model of the first stage."""
        from sdm.llm.finetune import finetune
        from sdm.llm.runs import weights_folder

        if (stage := first_stage(cell)) is not None:
            run = Path(self.policy(stage, artifacts).name)
            base = str(weights_folder(run, config.lora_rank))
            config = dataclasses.replace(config, base=base)
        how = {"resume": False, "overwrite": False, **how}
        finetune(config, out, progress=artifacts.training, **how)


def first_stage(cell: Cell) -> Cell | None:
    """Return the first training stage of a cell with two stages, else None.

    `first` in its `learn` holds the stage's horizon and the other options that differ.
    Short episodes provide a training signal that repetitions dilute in long ones.
    """
    if "first" not in cell.learn:
        return None
    learn = {name: x for name, x in cell.learn.items() if name != "first"}
    other = dict(cell.learn["first"])
    test = {**cell.test, "horizon": other.pop("horizon")}
    return dataclasses.replace(cell, test=test, learn={**learn, **other})


def _share(texts: int, tasks: int) -> int:
    """Return the number of texts per task."""
    share, rest = divmod(texts, tasks)
    if rest:
        raise ExperimentError(
            f"texts = {texts}: must be a multiple of the number of tasks, {tasks}"
        )
    return share
