"""The order of training texts: like lengths together, decided by seed and epoch.

The order of an epoch depends on nothing else, so that a run resumed in the middle of
one goes on with the very texts that it had not seen.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroupedByEpoch(Sampler[int]):
    """Indices shuffled into batches of similar lengths."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Remember the lengths; `set_epoch` chooses the order."""
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """The epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(
            get_length_grouped_indices(
                self.lengths, self.batch_size, generator=generator
            )
        )


class ResumableTrainer(Trainer):
    """A trainer whose order of texts a resumed run repeats exactly.

    The order depends neither on how many processes share a batch nor on the pieces in
    which it is taken.
    """

    def __init__(self, *, together: int, **options: Any) -> None:
        """Group `together` texts, a batch of all processes and pieces, by length."""
        self.together = together
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # The argument has lost the columns that the model does not take.
        data: Any = self.train_dataset
        return LengthGroupedByEpoch(data["length"], self.together, self.args.seed)
