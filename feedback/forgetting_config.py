"""Configuration of a study of forgetting. Imports no PyTorch."""

from dataclasses import dataclass

from sdm.llm.recipes import FinetuneConfig
from sdm.storage.checks import check_count

RANK = 16  # of adapters


@dataclass(frozen=True)
class ForgettingConfig:
    """Configuration of a study of forgetting.

    Attributes:
        base: base model, `smollm2`, `tiny`, a Hugging Face id or a model's folder.
        tokens: training tokens.
        block: tokens per training text.
        batch: training texts per optimizer step.
        adapter_rate: peak learning rate of adapters.
        full_rate: peak learning rate of all weights.
        held_out_tokens: tokens of the held-out text.
        questions: questions of each language task.

    """

    base: str
    tokens: int = 16384
    block: int = 256
    batch: int = 4
    adapter_rate: float = 5e-4
    full_rate: float = 5e-5
    held_out_tokens: int = 4096
    questions: int = 20

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("block", self.block, 2)
        check_count("batch", self.batch, 1)
        check_count("tokens", self.tokens, self.block * self.batch)
        check_count("held_out_tokens", self.held_out_tokens, self.block)
        check_count("questions", self.questions, 1)
        for name in ("adapter_rate", "full_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(
                    f"{name} = {getattr(self, name)}: must lie between 0 and 1"
                )

    def finetune(self, *, adapter: bool, seed: int) -> FinetuneConfig:
        """Return the configuration of the training."""
        return FinetuneConfig(
            data="",
            base=self.base,
            epochs=1,
            batch_size=self.batch,
            learning_rate=self.adapter_rate if adapter else self.full_rate,
            lora_rank=RANK if adapter else 0,
            lora_alpha=2 * RANK,
            lora_dropout=0.0,
            seed=seed,
        )
