"""Options of decision-pretrained transformers. Imports nothing heavy."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sdm.storage.checks import check_count

Contexts = Literal["trajectories", "transitions"]


@dataclass(frozen=True)
class DPTConfig:
    """Train a decision-pretrained transformer (Lee et al., 2023).

    Attributes:
        data: oracle dataset, from `sdm solve --out`.
        contexts: data in a context, `trajectories` of the oracle or `transitions` of
            random actions.
        support: episodes in a context; with `transitions`, their number of transitions.
        steps: optimizer steps.
        batch_size: samples per step.
        learning_rate: learning rate of the first step, with a cosine schedule.
        weight_decay: weight decay of AdamW.
        layers: transformer blocks.
        width: width of the network.
        heads: attention heads.
        seed: random seed of weights and samples.

    """

    data: str
    contexts: Literal["trajectories", "transitions"] = "trajectories"
    support: int = 2
    steps: int = 20_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    layers: int = 4
    width: int = 32
    heads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        if self.contexts not in get_args(Contexts):
            raise ValueError(
                f"contexts = {self.contexts!r}: must be one of "
                f"{', '.join(get_args(Contexts))}"
            )
        check_count("seed", self.seed, 0, 2**32 - 1)
        for name in ("support", "steps", "batch_size", "layers", "width", "heads"):
            check_count(name, getattr(self, name), 1)
        if self.width % self.heads:
            raise ValueError(
                f"width = {self.width}: must be a multiple of heads = {self.heads}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(
                f"weight_decay = {self.weight_decay}: must be 0 or more, and finite"
            )
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}: must lie between 0 and 1"
            )
