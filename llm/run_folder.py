"""Headers of run folders and merged models, read without PyTorch.

config.yaml     version, family, kind and fine-tuning configuration
metrics.jsonl   one line per logged step and per validation
report.json     losses, speed and time of the whole run
env.json        versions, commit and device
README.md       a model card
adapter/        LoRA weights (safetensors) and tokenizer, or
model/          all weights (safetensors) and tokenizer, if all were trained

A merged model is a model folder with a `merged.json`.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdm.llm.recipes import FinetuneConfig, recipe_of
from sdm.llm.schema import schemas
from sdm.policies.policy_runs import TASKS, tasks_of
from sdm.storage.files import StorageError
from sdm.storage.ownership import check_finished
from sdm.tasks.family import Kind

RUN_VERSION = 4
CONFIG, METRICS, MERGED = "config.yaml", "metrics.jsonl", "merged.json"
# What reading a damaged header raises.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
AGAIN = "train it again with `sdm finetune …`"


@dataclass(frozen=True)
class TrainedOn:
    """The tasks that a model was trained on; names and values as in a manifest.

    Attributes:
        family: reference of the family.
        kind: kind of model, mdp, pomdp or apomdp.
        family_config: the family's options.
        observes_reward: whether the agent observes its rewards.
        horizon: decisions per episode.

    """

    family: str
    kind: Kind
    family_config: dict[str, Any]
    observes_reward: bool
    horizon: int


@dataclass(frozen=True)
class RunHeader(TrainedOn):
    """The content of a run folder's `config.yaml`.

    Attributes:
        config: the fine-tuning configuration.
        base: fingerprint of the adapter's base; None if all weights were trained.

    """

    config: FinetuneConfig
    base: str | None

    def written(self) -> dict[str, Any]:
        """Return the content of `config.yaml`."""
        return {
            "run_version": RUN_VERSION,
            **{name: getattr(self, name) for name in TASKS},
            "base": self.base,
            "finetune": dataclasses.asdict(self.config),
        }


@dataclass(frozen=True)
class MergedHeader(TrainedOn):
    """The content of a merged model's `merged.json`.

    Attributes:
        run: the run folder that was merged.
        base: name of the run's base.
        schema: text schema of the episodes.
        support: demonstrations in each training text.

    """

    run: str
    base: str
    schema: str
    support: int


def is_run(folder: Path) -> bool:
    """Return whether this is the run folder of a language model."""
    return (folder / CONFIG).is_file()


def is_merged(folder: Path) -> bool:
    """Return whether this is a merged model."""
    return (folder / MERGED).is_file()


def weights_folder(folder: Path, lora_rank: int) -> Path:
    """Return the folder of a run's adapter, or of all its weights."""
    return folder / ("adapter" if lora_rank else "model")


def read_run(folder: Path) -> RunHeader:
    """Return the header of a run folder, without loading the model.

    Raises:
        StorageError: if `folder` is not a run folder, has another version or lacks a
            file.

    """
    check_finished(folder)
    path = folder / CONFIG
    try:
        header = yaml.safe_load(path.read_text(encoding="utf-8"))
        version, options = header["run_version"], header["finetune"]
    except (OSError, yaml.YAMLError, *DAMAGE) as error:
        raise StorageError(
            f"`{folder}` is not a run folder: {path.name} is missing or damaged",
            "make one with `sdm finetune --out FOLDER`",
        ) from error
    if version != RUN_VERSION:
        raise StorageError(
            f"`{folder}`: run version {version}, expected {RUN_VERSION}", AGAIN
        )
    try:
        config = FinetuneConfig(**options)
        if config.schema not in schemas():
            raise ValueError(f"schema = {config.schema!r}: unknown")
        found = RunHeader(**tasks_of(header), config=config, base=header["base"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"`{path}` is damaged: {error}", AGAIN) from error
    _check_files(folder, config.lora_rank)
    return found


def start_weights(config: FinetuneConfig) -> Path:
    """Return the folder of the weights from which a training starts.

    Raises:
        StorageError: if `config.start` is no run folder.
        ValueError: if its base or rank is another one.

    """
    folder = Path(str(config.start))
    before = read_run(folder).config
    for name in ("base", "lora_rank", "schema"):
        mine, other = getattr(config, name), getattr(before, name)
        if mine != other:
            raise ValueError(
                f"start = {str(folder)!r}: {name} must be {mine!r}, found {other!r}"
            )
    return weights_folder(folder, config.lora_rank)


def _check_files(folder: Path, lora_rank: int) -> None:
    """Raise `StorageError` if a run folder lacks its weights or tokenizer."""
    weights = weights_folder(folder, lora_rank)
    needed = ["*.safetensors", "tokenizer*.json"]
    needed += ["adapter_config.json"] if lora_rank else ["config.json"]
    for pattern in needed:
        if not any(weights.glob(pattern)):
            what = "weights" if pattern == needed[0] else pattern.replace("*", "")
            raise StorageError(
                f"`{folder}` has no {what}: `{weights}` is missing or incomplete", AGAIN
            )


def read_merged(folder: Path) -> MergedHeader | None:
    """Return the header of a merged model; None for any other folder.

    Raises:
        StorageError: if the header is damaged, or has another version.

    """
    if not is_merged(folder):
        return None
    path = folder / MERGED
    again = "merge the run again with `sdm merge`"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        version = header.get("run_version", "before 4")
        if version == RUN_VERSION:
            names = ("run", "base", "schema", "support")
            return MergedHeader(
                **tasks_of(header), **{name: header[name] for name in names}
            )
    except DAMAGE as error:
        raise StorageError(f"`{path}` is damaged: {error}", again) from error
    raise StorageError(
        f"`{folder}`: run version {version}, expected {RUN_VERSION}", again
    )


def default_schema(base: str) -> str:
    """Return the schema that a merged model was trained in, or that of a base's recipe.

    Raises:
        StorageError: if `base` is a merged model that cannot be read.

    """
    if (merged := read_merged(Path(base))) is not None:
        return merged.schema
    return str(recipe_of(base).get("schema", "paper"))


def content_hash(folder: Path) -> str | None:
    """Return a hash that identifies a run or a merged model; None for other folders.

    A run is identified by its metrics, a merged model by the name of its run and the
    time at which it was written.
    """
    found = None
    for file in (folder / METRICS, folder / MERGED):
        if file.is_file():
            about = file.read_bytes() + str(file.stat().st_mtime_ns).encode()
            found = hashlib.sha256(about).hexdigest()
    return found
