"""Fine-tuning configurations, and a recipe for each base. Imports no PyTorch.

From Zhang, Aghaei, Saghafian (2026): LoRA on every attention and MLP projection,
dropout 0.1, AdamW, cosine schedule, warm-up over 5 % of the steps, 3 epochs, a
validation split of 10 % of the training tasks, evaluated after each epoch, and the loss
on all tokens. Our choices: rank 16, LoRA α 32, learning rate 2e-4 and the recipes of
the bases below.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sdm.llm.base_names import stored_name
from sdm.storage.checks import check_count

Shown = Literal["optimal", "all", "random"]
Asked = Literal["optimal", "all"]
Loss = Literal["all", "actions"]
Quantize = Literal["nf4", "none"]
CHOICES = {
    "demonstrations": get_args(Shown),
    "queries": get_args(Asked),
    "loss": get_args(Loss),
    "quantize": get_args(Quantize),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Configuration of a fine-tuning run.

    Attributes:
        data: oracle dataset, a folder from `sdm solve --out`.
        base: base model, `smollm2`, `tiny`, a Hugging Face id or a model's folder.
        schema: text schema of the episodes: `compact`, `paper`, `words` or a registered
            one.
        support: demonstrations in each text.
        texts_per_task: training texts per task.
        tasks: number of training and validation tasks, the first in the dataset; all
            if not given.
        held_out: share of the tasks in the validation split.
        eval_gap: validation tasks on which the optimality gap is measured about ten
            times in training, to keep the weights with the smallest regret; 0 to keep
            those with the smallest validation loss after an epoch.
        epochs: passes over the training texts.
        batch_size: texts per optimizer step, over all processes.
        accumulate: gradient-accumulation steps per optimizer step; more steps need less
            memory.
        learning_rate: peak learning rate, reached after the warm-up.
        warmup: share of the optimizer steps in which the learning rate rises.
        weight_decay: weight decay of AdamW.
        initializer_range: standard deviation of random weights, with `from_scratch` and
            of `tiny`; the architecture's own if not given.
        demonstrations: episodes to draw demonstrations from, the oracle's (`optimal`),
            the dataset's random ones (`random`) or `all` of them.
        queries: episodes at the end of the texts, the oracle's (`optimal`) or `all`, in
            which every other one is random; the labels are the oracle's actions.
        loss: tokens in the next-token loss, `all` or those of `actions`.
        quantize: weights of the base, 4-bit (`nf4`) or unquantized (`none`).
        from_scratch: random initialization of the base's architecture; all weights are
            trained.
        lora_rank: rank of the LoRA adapter; 0 trains all weights.
        lora_alpha: scale of the adapter, divided by its rank.
        lora_dropout: dropout probability before the adapter.
        gradient_checkpointing: recomputation of activations; needs less memory and
            about a third more time.
        trust_remote_code: execution of the Python code in a base's repository.
        start: run folder of the same base, whose weights the training starts from; the
            base's own if not given.
        seed: random seed of texts, order, weights and dropout.

    """

    data: str
    base: str
    schema: str = "paper"
    support: int = 2
    texts_per_task: int = 15
    tasks: int | None = None
    held_out: float = 0.1
    eval_gap: int = 0
    epochs: int = 3
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    initializer_range: float | None = None
    demonstrations: Shown = "optimal"
    queries: Asked = "optimal"
    loss: Loss = "all"
    quantize: Quantize = "none"
    from_scratch: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    start: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: must be one of "
                    f"{', '.join(choices)}"
                )
        for name, least in LEAST.items():
            check_count(name, getattr(self, name), least)
        check_count("seed", self.seed, 0, 2**32 - 1)
        if self.tasks is not None:
            check_count("tasks", self.tasks, 2)  # at least one for validation
        self._check_shares()
        if self.quantize == "nf4" and not self.lora_rank:
            raise ValueError(
                "lora_rank = 0: must be 1 or more, since a quantized base needs an "
                "adapter"
            )
        if self.from_scratch and self.lora_rank:
            raise ValueError(
                f"lora_rank = {self.lora_rank}: must be 0, since from_scratch trains "
                "all weights"
            )
        if (
            self.initializer_range is not None
            and self.base != "tiny"
            and not self.from_scratch
        ):
            raise ValueError(
                f"initializer_range = {self.initializer_range:g}: has no effect on "
                f"the weights of base {self.base!r}; pass --from-scratch to draw them"
            )
        if self.from_scratch and self.start is not None:
            raise ValueError(
                f"start = {self.start!r}: must not be given with from_scratch, which "
                "starts from random weights"
            )

    def _check_shares(self) -> None:
        """Raise `ValueError` for a share or a rate that is out of range."""
        for name in ("lora_dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: must be 0 or more, and below 1"
                )
        for name in ("learning_rate", "held_out", "initializer_range"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: must lie between 0 and 1"
                )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be 0 or more")


LEAST = {
    "support": 0,
    "eval_gap": 0,
    "texts_per_task": 1,
    "epochs": 1,
    "batch_size": 1,
    "accumulate": 1,
    "lora_rank": 0,
    "lora_alpha": 1,
}


# Differences from the defaults above, per base, chosen by the experiment on recipes.
RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "schema": "compact",
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
        # 1/√128, as SmolLM2 has 1/√576. With Llama's 0.02, it does not learn in 18,000
        # texts what rewards say about the arms of bandits; with this, it does.
        "initializer_range": 0.088,
        "lora_rank": 0,
    },
    "smollm2": {
        "schema": "compact",
        "epochs": 1,
        "batch_size": 2,
        "learning_rate": 5e-4,
        "loss": "actions",
        "lora_dropout": 0.0,
    },
    # The paper's base, within the 80 GB of its GPU; see benchmarks/memory.py.
    "meta-llama/Llama-2-7b-hf": {
        "quantize": "nf4",
        "gradient_checkpointing": True,
        "accumulate": 2,
    },
}


def recipe_of(base: str) -> dict[str, Any]:
    """Return the options of a base that differ from the defaults.

    A folder has the recipe of the model that it is named after: on a cluster without
    network access, Llama-2-7B is loaded from a folder.
    """
    by_folder = {Path(name).name: name for name in RECIPES if "/" in name}
    return RECIPES.get(base) or RECIPES.get(by_folder.get(Path(base).name, ""), {})


def recipe(data: str, base: str, *, seed: int = 0, **given: Any) -> FinetuneConfig:
    """Return the configuration for a base: its recipe, overridden by given options.

    If a process has fewer texts per step than the recipe's gradient-accumulation
    steps, it uses fewer steps.

    Args:
        data: folder of the oracle dataset.
        base: name or folder of the base model.
        seed: random seed of texts, order, weights and dropout.
        given: other options of `FinetuneConfig`; None keeps the recipe's.

    Raises:
        ValueError: if an option is out of range.

    """
    chosen = {name: value for name, value in given.items() if value is not None}
    options = recipe_of(base) | chosen
    if options.get("from_scratch"):  # an adapter would leave the base's weights random
        options = options | {"lora_rank": 0, "quantize": "none"} | chosen
    base = stored_name(base)
    if "start" in options:
        options = options | {"start": str(Path(options["start"]).resolve())}
    config = FinetuneConfig(data=data, base=base, seed=seed, **options)
    if "accumulate" in chosen:
        return config
    share = max(1, config.batch_size // int(os.environ.get("WORLD_SIZE", "1")))
    return dataclasses.replace(config, accumulate=math.gcd(config.accumulate, share))
