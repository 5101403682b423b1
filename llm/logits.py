"""Logits of a causal language model in single precision.

On an accelerator, models compute in bfloat16, which has 8 significant bits: logits of
16 to 32 are then multiples of 1/8, and actions tie. The last layer, from hidden states
to logits, is therefore computed in single precision.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

from sdm.llm.bases import CausalModel

TOGETHER = 16_384  # tokens of the vocabulary whose weights are converted together


def logits_of(
    model: CausalModel, keep: torch.Tensor | int, **inputs: Any
) -> torch.Tensor:
    """Return the logits of a model in single precision, at some columns only.

    Args:
        model: the model.
        keep: indices of the columns, or how many of the last ones.
        inputs: other arguments of the model.

    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    with _precise_head(inner):
        if "logits_to_keep" in inspect.signature(inner.forward).parameters:
            return model(**inputs, logits_to_keep=keep).logits.float()
        columns = slice(-keep, None) if isinstance(keep, int) else keep
        return model(**inputs).logits[:, columns].float()


@contextmanager
def _precise_head(model: Any) -> Iterator[None]:
    """Compute the last linear layer of a model in single precision.

    What the model does to its logits afterwards, such as scaling, is unchanged. A layer
    with 4-bit weights or an adapter is left as it is.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        yield
        return

    def precise(
        layer: torch.nn.Linear, arguments: tuple[torch.Tensor], _: torch.Tensor
    ) -> torch.Tensor:
        hidden = arguments[0].float()
        parts = [hidden @ part.float().T for part in layer.weight.split(TOGETHER)]
        logits = torch.cat(parts, -1)
        return logits if layer.bias is None else logits + layer.bias.float()

    hook = head.register_forward_hook(precise)
    try:
        yield
    finally:
        hook.remove()
