"""Logits of a causal language model."""

import inspect
from typing import Any

import torch
from peft import PeftModel

from sdm.llm.bases import CausalModel


def logits_of(
    model: CausalModel, keep: torch.Tensor | int, **inputs: Any
) -> torch.Tensor:
    """Return the logits of a model in single precision, at some columns only.

    Args:
        model: the model.
        keep: indices of the columns, or how many of the last ones.
        inputs: other arguments of the model.

    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if "logits_to_keep" in inspect.signature(inner.forward).parameters:
        return model(**inputs, logits_to_keep=keep).logits.float()
    columns = slice(-keep, None) if isinstance(keep, int) else keep
    return model(**inputs).logits[:, columns].float()
