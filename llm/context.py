"""Check of texts against the context length of a model."""

from sdm.llm.bases import CausalModel


class ContextError(ValueError):
    """A text that is longer than a model's context."""


def check_length(model: CausalModel, tokens: int) -> None:
    """Raise `ContextError` if `tokens` exceeds the positions that a model has."""
    check_context(getattr(model.config, "max_position_embeddings", None), tokens)


def check_context(most: int | None, tokens: int) -> None:
    """Raise `ContextError` if `tokens` exceeds `most`; None is no limit."""
    if most is not None and tokens > most:
        raise ContextError(
            f"text: must fit the model's context of {most} tokens, found {tokens}: "
            "shorten it with `--schema compact`, a smaller `--support` or a shorter "
            "horizon"
        )
