"""Fine-tuning configurations, and a recipe for each base; imports no PyTorch.

Theirs (Zhang, Aghaei, Saghafian, 2026) are LoRA on every attention and MLP projection,
dropout 0.1, AdamW, cosine schedule, warm-up over 5 % of the steps, 3 epochs, 10 % of
the training tasks held out and evaluated each epoch, and the loss on all tokens. Ours
are rank 16, LoRA α 32, learning rate 2e-4 and the recipes of the bases below.
"""

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sdm.llm.base_names import stored_name
from sdm.tasks.models import check_count

CHOICES: dict[str, tuple[str | None, ...]] = {
    "demonstrations": ("optimal", "all"),
    "queries": ("optimal", "all"),
    "loss": ("all", "actions"),
    "quantize": ("nf4", None),
}


@dataclass(frozen=True)
class FinetuneConfig:
    """Everything that decides what is learned.

    Attributes:
        data: the oracle dataset.
        base: `smollm2`, `tiny`, a Hugging Face id or a folder.
        schema: how episodes are written.
        support: demonstrations in each text.
        texts_per_task: training texts made of each task's episodes.
        tasks: training and validation tasks used; None for all in the dataset.
        held_out: share of the tasks that is the validation set.
        epochs: passes over the texts.
        batch_size: texts per step, over all processes.
        accumulate: pieces in which each process takes its share of a batch; the more,
            the less memory.
        learning_rate: its peak, after the warm-up.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        demonstrations: whose episodes are shown: the oracle's (`optimal`), or `all` of
            a dataset that has random ones, too.
        queries: whose episodes end the texts: the oracle's, or `all`, every other one
            random. What is learned is always what the oracle would do there.
        loss: next-token loss on `all` tokens or on the `actions` only.
        quantize: `nf4` for a 4-bit base, None for a full one.
        from_scratch: begin with random weights in the base's architecture, and train
            all of them.
        lora_rank: rank of the adapter; 0 trains all weights.
        lora_alpha: scale of the adapter, over its rank.
        lora_dropout: dropout before the adapter.
        gradient_checkpointing: compute activations twice instead of keeping them.
        trust_remote_code: run the code that comes with a base from elsewhere.
        seed: of texts, order, weights and dropout.

    """

    data: str
    base: str
    schema: str = "paper"
    support: int = 2
    texts_per_task: int = 15
    tasks: int | None = None
    held_out: float = 0.1
    epochs: int = 3
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    demonstrations: Literal["optimal", "all"] = "optimal"
    queries: Literal["optimal", "all"] = "optimal"
    loss: Literal["all", "actions"] = "all"
    quantize: Literal["nf4"] | None = None
    from_scratch: bool = False
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number or a name that makes no sense."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r}: must be one of "
                    f"{', '.join(map(str, choices))}"
                )
        check_count("support", self.support, 0)
        check_count("texts_per_task", self.texts_per_task, 1)
        check_count("epochs", self.epochs, 1)
        check_count("batch_size", self.batch_size, 1)
        check_count("accumulate", self.accumulate, 1)
        check_count("lora_rank", self.lora_rank, 0)
        check_count("lora_alpha", self.lora_alpha, 1)
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_dropout = {self.lora_dropout}: must be 0 or more, and below 1"
            )
        if self.quantize and not self.lora_rank:
            raise ValueError("a quantised base needs an adapter: lora_rank must be > 0")
        if self.from_scratch and self.lora_rank:
            raise ValueError(
                "from_scratch trains all weights: lora_rank must be 0, and is "
                f"{self.lora_rank}"
            )
        if self.tasks is not None:
            check_count("tasks", self.tasks, 2)  # one of them to validate
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}: must lie between 0 and 1"
            )


# What differs from the defaults above, per base: what experiments/recipes found.
RECIPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "schema": "compact",
        "epochs": 1,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "weight_decay": 0.1,
        "lora_rank": 0,
    },
    "smollm2": {
        "schema": "compact",
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "loss": "actions",
        "lora_dropout": 0.0,
    },
    # The paper's, within the 80 GB of its GPU: see benchmarks/memory.py.
    "meta-llama/Llama-2-7b-hf": {
        "quantize": "nf4",
        "gradient_checkpointing": True,
        "accumulate": 2,
    },
}


def recipe_of(base: str) -> dict[str, Any]:
    """What a base differs in from the defaults; a folder goes by its name.

    Where a cluster has no network, Llama-2-7B lies in a folder: it is the same base.
    """
    by_folder = {Path(name).name: name for name in RECIPES if "/" in name}
    return RECIPES.get(base) or RECIPES.get(by_folder.get(Path(base).name, ""), {})


def recipe(data: str, base: str, *, seed: int = 0, **given: Any) -> FinetuneConfig:
    """The configuration for a base: its recipe, changed by what is given and not None.

    A recipe's pieces of a batch are fewer where there is not as much to share out.

    Raises:
        ValueError: if a number makes no sense.

    """
    chosen = {name: value for name, value in given.items() if value is not None}
    options = recipe_of(base) | chosen
    if options.get("from_scratch"):  # an adapter would leave random weights as they are
        options = options | {"lora_rank": 0, "quantize": None} | chosen
    base = stored_name(base)
    if options.get("quantize") == "none":
        options["quantize"] = None
    config = FinetuneConfig(data=data, base=base, seed=seed, **options)
    if "accumulate" in chosen:
        return config
    share = max(1, config.batch_size // int(os.environ.get("WORLD_SIZE", "1")))
    return dataclasses.replace(config, accumulate=math.gcd(config.accumulate, share))
