"""Run folders: what was learned, from what, how, and on what machine.

config.yaml     the fine-tuning configuration
metrics.jsonl   one line per logged step and per validation
report.json     losses, speed and time, in all
env.json        versions, commit and device
README.md       a model card, written from the run
adapter/        LoRA weights (safetensors) and tokeniser, or
model/          all weights (safetensors) and tokeniser, where all were trained
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from sdm.llm.bases import CausalModel, compute_dtype, load_base, move
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.schema import schemas
from sdm.policies.policy_runs import TASKS
from sdm.storage.files import StorageError, write_atomically
from sdm.storage.provenance import provenance

RUN_VERSION = 4
MERGED = "merged.json"  # what is known of a merged model


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says about its run.

    Attributes:
        config: the fine-tuning configuration.
        report: losses, speed and time.
        tasks: what the training data's manifest says of its tasks, by the names in
            `TASKS`.
        base: fingerprint of the base under an adapter; None where there is none.
        training_texts: how many there were.

    """

    config: Mapping[str, Any]
    report: Mapping[str, Any]
    tasks: Mapping[str, Any]
    base: str | None
    training_texts: int


@dataclass(frozen=True)
class LoadedRun:
    """A fine-tuned model, ready to act.

    Attributes:
        model: base with adapter, or the whole model.
        tokenizer: its tokeniser.
        config: the fine-tuning configuration.
        tasks: what the training data's manifest says of its tasks.

    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    config: dict[str, Any]
    tasks: dict[str, Any]


def write_metrics(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Write the trainer's log, one JSON object a line."""
    text = "".join(json.dumps(entry) + "\n" for entry in history)
    write_atomically(folder / "metrics.jsonl", text)


def weights_folder(folder: Path, lora_rank: int) -> Path:
    """Where a run keeps its adapter, or all of its weights."""
    return folder / ("adapter" if lora_rank else "model")


def copy_weights(checkpoint: Path, weights: Path) -> None:
    """Copy an adapter or a model out of a checkpoint, and nothing else of it."""
    shutil.rmtree(weights, ignore_errors=True)  # of an attempt that was cut short
    weights.mkdir()
    for pattern in ("*.safetensors", "*.safetensors.index.json", "*config.json"):
        for file in checkpoint.glob(pattern):
            shutil.copy(file, weights)


def save_run(
    folder: Path, record: RunRecord, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Fill a run folder that has its weights."""
    weights = weights_folder(folder, record.config["lora_rank"])
    tokenizer.save_pretrained(weights)
    header = {
        "run_version": RUN_VERSION,
        **record.tasks,
        "base": record.base,
        "finetune": dict(record.config),
    }
    write_atomically(folder / "config.yaml", yaml.safe_dump(header, sort_keys=False))
    made = json.dumps(provenance(by_torch=True), indent=2) + "\n"
    write_atomically(folder / "env.json", made)
    report = json.dumps(dict(record.report), indent=2) + "\n"
    write_atomically(folder / "report.json", report)
    write_atomically(folder / "README.md", model_card(record))


def model_card(record: RunRecord) -> str:
    """The run in words and figures."""
    config, report = record.config, record.report
    losses = ", ".join(f"{loss:.4f}" for loss in report["eval_loss"])
    rows = "\n".join(f"| {name} | {value} |" for name, value in config.items())
    what = "LoRA adapter for" if config["lora_rank"] else "All weights of"
    return f"""# {what} `{config["base"]}`

Chooses actions in unseen tasks ({record.tasks["family"]}, {record.tasks["kind"]}) by
comparing the probabilities of the action tokens, after {config["support"]}
demonstrations. Trained by `sdm finetune` on {record.training_texts} texts that end in
an optimal episode of {record.tasks["horizon"]} stages.

- training loss {report["train_loss"]:.4f}; validation loss by epoch: {losses}
- {report["steps"]} steps in {report["seconds"]:.0f} s, \
{report["tokens_per_second"]:.0f} tokens/s, on {provenance(by_torch=True)["device"]}

Evaluate it with `sdm eval --policy THIS_FOLDER`. It knows tasks like those it was
trained on, in the same wording, and nothing else.

| option | value |
|---|---|
{rows}
"""


def fingerprint(base: CausalModel) -> str:
    """What tells a base from another of the same name: a hash of some of its weights.

    Of the embeddings' first rows and of the norms, which no 4-bit quantisation touches,
    in bfloat16: that is what they are on an accelerator.
    """
    digest = hashlib.sha256()
    embeddings = base.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    table = embeddings.weight[:64]
    norms = (
        w
        for n, w in base.named_parameters()
        if w.ndim == 1 and ("norm" in n or "ln_" in n)
    )
    for weight in (table, *norms):
        plain = weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _with_adapter(base: CausalModel, weights: Path, name: str) -> PeftModel:
    """The base with the adapter that was trained on it.

    Raises:
        StorageError: if it was trained on another base.

    """
    try:
        return PeftModel.from_pretrained(base, str(weights))
    except (RuntimeError, ValueError) as error:
        text = str(error)
        shapes = re.search(
            r"size mismatch for (\S+):.*?shape (.*?) from.*?is (.*?)\.?$",
            text,
            re.DOTALL | re.MULTILINE,
        )
        what = "it has other layers"
        if shapes:
            layer, own, there = shapes.groups()
            what = f"{layer} is {own} in the adapter and {there} there"
        raise StorageError(
            f"the adapter `{weights}` does not fit its base `{name}`: {what}",
            "it was trained on another model of the same name",
        ) from error


@dataclass(frozen=True)
class RunHeader:
    """What `config.yaml` of a run folder says.

    Attributes:
        config: the fine-tuning configuration.
        tasks: what the training data's manifest says of its tasks.
        base: the fingerprint of the base under an adapter.

    """

    config: dict[str, Any]
    tasks: dict[str, Any]
    base: str | None


def read_run(folder: Path) -> RunHeader:
    """What is in a run folder, without loading it.

    Raises:
        StorageError: if `folder` is not a run folder, of another version, or lacks
            something.

    """
    path, again = folder / "config.yaml", "train it again with `sdm finetune`"
    try:
        header = yaml.safe_load(path.read_text(encoding="utf-8"))
        version, config = header["run_version"], header["finetune"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StorageError(
            f"`{folder}` is not a run folder: {path.name} is missing or damaged",
            "make one with `sdm finetune --out FOLDER`",
        ) from error
    if version != RUN_VERSION:
        raise StorageError(
            f"`{folder}`: run version {version}, expected {RUN_VERSION}",
            again,
        )
    try:
        FinetuneConfig(**config)
        if config["schema"] not in schemas():
            raise ValueError(f"unknown schema `{config['schema']}`")
        tasks = {name: header[name] for name in TASKS}
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"`{path}` is damaged: {error}", again) from error
    weights = weights_folder(folder, config["lora_rank"])
    needed = ["*.safetensors", "tokenizer*.json"]
    needed += ["adapter_config.json"] if config["lora_rank"] else ["config.json"]
    for pattern in needed:
        if not any(weights.glob(pattern)):
            what = "weights" if pattern == needed[0] else pattern.replace("*", "")
            raise StorageError(
                f"`{folder}` has no {what}: `{weights}` is missing or not whole", again
            )
    return RunHeader(config, tasks, header.get("base"))


def _check_there(folder: Path, base: str) -> None:
    """Raise `StorageError` if the folder that an adapter's base was in is gone."""
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise StorageError(
            f"`{folder}` is an adapter for the base in `{base}`, which is not there",
            f"put it back, or write where it is now as `base` in `{folder}/config.yaml`"
            ": its weights are checked",
        )


def load_run(folder: Path, **options: str | None) -> LoadedRun:
    """Load what `finetune` wrote.

    Args:
        folder: the run folder.
        options: `quantize`, where the base is to be loaded otherwise than trained.

    Raises:
        StorageError: if `folder` is not a whole run folder, of another version, or its
            adapter was trained on another base.
        BaseModelError: if the adapter's base cannot be had.

    """
    header = read_run(folder)
    config = header.config
    weights = weights_folder(folder, config["lora_rank"])
    model: CausalModel
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights)
        if config["lora_rank"]:
            _check_there(folder, config["base"])
            base, _ = load_base(
                config["base"],
                quantize=options.get("quantize", config["quantize"]),
                seed=config["seed"],  # which decides the weights of `tiny`
                trust_remote_code=config["trust_remote_code"],
            )
            found = fingerprint(base)
            model = _with_adapter(base, weights, config["base"])
            if found != header.base:
                raise StorageError(
                    f"the adapter `{weights}` was trained on other weights than those "
                    f"of `{config['base']}`: their fingerprint was {header.base}, and "
                    f"is {found}",
                    "put the weights of then in their place, or train it again",
                )
        else:
            model = AutoModelForCausalLM.from_pretrained(weights, dtype=compute_dtype())
            move(model)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise StorageError(
            f"`{weights}` is damaged: {error}", "train it again with `sdm finetune`"
        ) from error
    return LoadedRun(model.eval(), tokenizer, config, header.tasks)
