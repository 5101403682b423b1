"""Batches of training and validation texts, and the losses over them.

Texts are shuffled by seed and epoch. The order depends on nothing else, so a run that
resumes within an epoch continues with the texts that it has not seen. Texts are not
grouped by length, although that would save padding: where rewards are written, length
is the number of successes, so that all texts of a batch would have equally many, and
its gradient would mostly raise or lower the probability of a success.

Every process must have equally many texts. Where they cannot be divided evenly, blank
texts fill the last batch. A blank text has one token and no label, so it adds nothing
to a loss or a gradient, and several processes learn what one learns.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_utils import EvalLoopOutput

from sdm.llm.tokens import IGNORED


class ShuffledByEpoch(Sampler[int]):
    """Sampler that shuffles texts anew in every epoch, blank texts last.

    Args:
        texts: number of texts.
        seed: random seed of the order.
        blanks: number of blank texts, which follow the others in the dataset.

    """

    def __init__(self, texts: int, seed: int, blanks: int = 0) -> None:
        """Store the numbers of texts; `set_epoch` selects the order."""
        self.texts, self.seed, self.blanks = texts, seed, blanks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of texts, blank ones included."""
        return self.texts + self.blanks

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices in the epoch's order."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.texts, generator=generator).tolist()
        return iter([*order, *range(self.texts, len(self))])


def with_blanks(dataset: Dataset, multiple: int) -> Dataset:
    """Return a dataset with blank texts up to a multiple of a number of texts."""
    count = -len(dataset) % multiple
    if not count:
        return dataset
    token = dataset[0]["input_ids"][0]
    blank = {"input_ids": [token], "labels": [IGNORED], "length": 1}
    added = Dataset.from_list([blank] * count, features=dataset.features)
    return concatenate_datasets([dataset, added])


class ResumableTrainer(Trainer):
    """A trainer whose order of texts a resumed run repeats exactly.

    Order and losses depend neither on the number of processes nor on the number of
    gradient-accumulation steps.
    """

    def __init__(
        self,
        *,
        together: int,
        gap: Callable[[Any], Mapping[str, float]] | None = None,
        **options: Any,
    ) -> None:
        """Take `together` texts per optimizer step, over all processes.

        `gap` returns more metrics of a model at each validation.
        """
        self.gap = gap
        super().__init__(**options)
        train: Any = self.train_dataset
        self.texts = len(train)
        processes = self.accelerator.num_processes
        if processes > 1:
            each = processes * self.args.per_device_eval_batch_size
            self.train_dataset = with_blanks(train, together)
            self.eval_dataset = with_blanks(options["eval_dataset"], each)
        if not self.model_accepts_loss_kwargs:
            # Such a model averages over its own labels, and a blank text has none.
            self.compute_loss_func = causal_loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        data: Any = self.train_dataset
        blanks = len(data) - self.texts
        return ShuffledByEpoch(self.texts, self.args.seed, blanks)

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Add a batch's loss and labels to the sums; return its loss, and no logits."""
        inputs = self._prepare_inputs(inputs)
        count = inputs["labels"][:, 1:].ne(IGNORED).sum()
        with torch.no_grad(), self.compute_loss_context_manager():
            # The loss is divided by this number, not by that of the batch's labels, and
            # multiplied by the number of processes, as if for an average over them.
            loss: Any = self.compute_loss(
                model, inputs, num_items_in_batch=torch.ones_like(count)
            )
        total = loss.detach() / self.accelerator.num_processes
        self.loss_and_labels += torch.stack([total, count]).double()
        return total / count.clamp(min=1), None, None

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Return the mean loss over all labels of the texts, whatever their batches."""
        self.loss_and_labels = torch.zeros(
            2, dtype=torch.float64, device=self.args.device
        )
        output = super().evaluation_loop(
            dataloader, description, True, ignore_keys, metric_key_prefix
        )
        total, count = self.accelerator.reduce(self.loss_and_labels).tolist()
        assert output.metrics is not None
        output.metrics[f"{metric_key_prefix}_loss"] = total / count
        if self.gap is not None:
            found = self.gap(self.accelerator.unwrap_model(self.model))
            prefix = metric_key_prefix
            output.metrics.update({f"{prefix}_{k}": x for k, x in found.items()})
        return output


def causal_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor
) -> torch.Tensor:
    """Return the summed next-token loss, divided by a number of labels."""
    logits = outputs["logits"]
    return ForCausalLMLoss(
        logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch
    )
