"""Texts that are longer than what a model reads."""

from sdm.llm.bases import CausalModel


class ContextError(ValueError):
    """A text that is longer than what a model can read."""


def check_length(model: CausalModel, tokens: int) -> None:
    """Raise `ContextError` for a text of more tokens than a model has positions for."""
    check_context(getattr(model.config, "max_position_embeddings", None), tokens)


def check_context(most: int | None, tokens: int) -> None:
    """Raise `ContextError` for a text of more than `most` tokens."""
    if most is not None and tokens > most:
        raise ContextError(
            f"a text has {tokens} tokens, and the model reads {most}: shorten it by "
            "`--schema compact`, a smaller `--support` or a shorter horizon"
        )
