"""Order of training texts: batches of similar lengths, shuffled by seed and epoch.

The order depends on nothing else, so a run that resumes within an epoch continues with
the texts that it has not seen.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroupedByEpoch(Sampler[int]):
    """Sampler that shuffles indices into batches of similar lengths."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Store the lengths, in tokens; `set_epoch` selects the order."""
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices in the epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(
            get_length_grouped_indices(
                self.lengths, self.batch_size, generator=generator
            )
        )


class ResumableTrainer(Trainer):
    """A trainer whose order of texts a resumed run repeats exactly.

    The order depends neither on the number of processes nor on the number of
    gradient-accumulation steps.
    """

    def __init__(self, *, together: int, **options: Any) -> None:
        """Group texts by length, `together` per optimizer step over all processes."""
        self.together = together
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # The argument lacks the column `length`, which the model does not take.
        data: Any = self.train_dataset
        return LengthGroupedByEpoch(data["length"], self.together, self.args.seed)
