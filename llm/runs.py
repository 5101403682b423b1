"""Run folders with their models: write them after training, load them to act."""

import dataclasses
import hashlib
import json
import re
import shutil
import warnings
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

from sdm.llm.bases import CausalModel, load_base
from sdm.llm.devices import compute_dtype, move
from sdm.llm.run_folder import AGAIN, CONFIG, METRICS, RunHeader
from sdm.llm.run_folder import read_run as read_run
from sdm.llm.run_folder import weights_folder as weights_folder
from sdm.storage.files import StorageError, write_atomically
from sdm.storage.provenance import provenance

FLOAT16 = "float16-"  # prefix of the fingerprint of a base in this precision


@dataclass(frozen=True)
class RunRecord:
    """What a run folder records about its run.

    Attributes:
        header: tasks and configuration of the training.
        report: losses, speed and time.
        training_texts: number of training texts.

    """

    header: RunHeader
    report: Mapping[str, Any]
    training_texts: int


@dataclass(frozen=True)
class LoadedRun:
    """A fine-tuned model, ready to act.

    Attributes:
        model: base with adapter, or the whole model.
        tokenizer: its tokenizer.
        header: tasks and configuration of the training.

    """

    model: CausalModel
    tokenizer: PreTrainedTokenizerBase
    header: RunHeader


def write_metrics(folder: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """Write the trainer's log, one JSON object per line."""
    text = "".join(json.dumps(entry) + "\n" for entry in history)
    write_atomically(folder / METRICS, text)


def copy_weights(checkpoint: Path, weights: Path) -> None:
    """Copy the weights and their configuration from a checkpoint, and nothing else."""
    shutil.rmtree(weights, ignore_errors=True)  # left by an interrupted attempt
    weights.mkdir()
    for pattern in ("*.safetensors", "*.safetensors.index.json", "*config.json"):
        for file in checkpoint.glob(pattern):
            shutil.copy(file, weights)


def save_run(
    folder: Path, record: RunRecord, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write everything except the weights into a run folder."""
    header = record.header
    tokenizer.save_pretrained(weights_folder(folder, header.config.lora_rank))
    text = yaml.safe_dump(header.written(), sort_keys=False)
    write_atomically(folder / CONFIG, text)
    made = json.dumps(provenance(by_torch=True), indent=2) + "\n"
    write_atomically(folder / "env.json", made)
    report = json.dumps(dict(record.report), indent=2) + "\n"
    write_atomically(folder / "report.json", report)
    write_atomically(folder / "README.md", model_card(record))


def model_card(record: RunRecord) -> str:
    """Return the model card of a run, in Markdown."""
    header, report = record.header, record.report
    config = header.config
    losses = ", ".join(f"{loss:.4f}" for loss in report["eval_loss"])
    options = dataclasses.asdict(config).items()
    rows = "\n".join(f"| {name} | {value} |" for name, value in options)
    what = "LoRA adapter for" if config.lora_rank else "All weights of"
    return f"""# {what} `{config.base}`

Chooses actions in unseen {header.kind} tasks of the family `{header.family}` by
comparing the probabilities of the action tokens, after {config.support} demonstrations.
Trained by `sdm finetune` on {record.training_texts} texts of episodes of
{header.horizon} stages.

- training loss {report["train_loss"]:.4f}; validation loss by epoch: {losses}
- {report["steps"]} steps in {report["seconds"]:.0f} s, \
{report["tokens_per_second"]:.0f} tokens/s, on {provenance(by_torch=True)["device"]}

Evaluate it with `sdm eval --policy THIS_FOLDER`. Use it only for tasks like those it
was trained on, written in the same text schema.

| option | value |
|---|---|
{rows}
"""


def fingerprint(base: CausalModel) -> str:
    """Return a hash of some weights, which distinguishes bases of the same name.

    It covers the first 64 rows of the embeddings, and the norms, which 4-bit
    quantization does not change. They are converted to bfloat16, their precision on an
    accelerator. Float16 rounds small weights in another way, so the hash of a base that
    was loaded in it has a prefix and is not compared with others.
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
    prefix = FLOAT16 if compute_dtype() == torch.float16 else ""
    return prefix + digest.hexdigest()[:16]


def load_run(
    folder: Path, *, full_precision: bool = False, trust_remote_code: bool = False
) -> LoadedRun:
    """Load a fine-tuned model from its run folder.

    Args:
        folder: the run folder.
        full_precision: load the base of an adapter unquantized, even if the adapter was
            trained on 4-bit weights.
        trust_remote_code: run the Python code of the base's repository, if the run was
            trained with it. The folder cannot decide this: anybody may have made it.

    Raises:
        StorageError: if `folder` is not a complete run folder, has another version, its
            adapter was trained on another base, or its base needs code that is not
            trusted.
        BaseModelError: if the adapter's base is unavailable.

    """
    header = read_run(folder)
    if header.config.trust_remote_code and not trust_remote_code:
        raise StorageError(
            f"`{folder}`: runs the Python code of the repository of its base "
            f"`{header.config.base}`",
            "pass `--trust-remote-code`, if the command has it and you trust this code",
        )
    weights = weights_folder(folder, header.config.lora_rank)
    model: CausalModel
    try:
        trust = {"trust_remote_code": header.config.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(weights, **trust)
        if header.config.lora_rank:
            quantize = None if full_precision else header.config.quantize
            model = _load_adapter(folder, header, quantize)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                weights, dtype=compute_dtype(), **trust
            )
            move(model)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise StorageError(f"`{weights}` is damaged: {error}", AGAIN) from error
    return LoadedRun(model.eval(), tokenizer, header)


def _load_adapter(folder: Path, header: RunHeader, quantize: str | None) -> PeftModel:
    """Return the base with a run's adapter.

    Raises:
        StorageError: if the base is missing, or is not the one trained on.

    """
    config = header.config
    weights = weights_folder(folder, config.lora_rank)
    _check_base_exists(folder, config.base)
    base, _ = load_base(
        config.base,
        quantize=quantize,
        seed=config.seed,  # determines the weights of `tiny`, with the next one
        initializer_range=config.initializer_range,
        trust_remote_code=config.trust_remote_code,
    )
    found = fingerprint(base)
    model = _with_adapter(base, weights, config.base)
    if found.startswith(FLOAT16) != str(header.base).startswith(FLOAT16):
        warnings.warn(
            f"adapter `{weights}`: trained in another precision than it is loaded in, "
            "so the weights of its base are not compared",
            stacklevel=3,
        )
    elif found != header.base:
        raise StorageError(
            f"adapter `{weights}`: trained on other weights than those of "
            f"`{config.base}`: fingerprint {header.base}, found {found}",
            "restore the weights it was trained on, or train it again",
        )
    return model


def _with_adapter(base: CausalModel, weights: Path, name: str) -> PeftModel:
    """Return the base with the adapter that was trained on it.

    Raises:
        StorageError: if it was trained on another base.

    """
    try:
        return PeftModel.from_pretrained(base, str(weights))
    except (RuntimeError, ValueError) as error:
        shapes = re.search(
            r"size mismatch for (\S+):.*?shape (.*?) from.*?is (.*?)\.?$",
            str(error),
            re.DOTALL | re.MULTILINE,
        )
        what = "its layers differ"
        if shapes:
            layer, own, there = shapes.groups()
            what = f"{layer} is {own} in the adapter, found {there}"
        raise StorageError(
            f"adapter `{weights}`: does not fit its base `{name}`: {what}",
            "restore the base that it was trained on; this one has the same name",
        ) from error


def _check_base_exists(folder: Path, base: str) -> None:
    """Raise `StorageError` if the folder of an adapter's base is missing."""
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise StorageError(
            f"`{folder}`: the adapter's base is missing, expected in `{base}`",
            f"restore it, or set `base` in `{folder / CONFIG}` to its new folder; its "
            "weights are checked",
        )
