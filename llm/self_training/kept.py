"""The episodes that an iteration keeps, or why it keeps none."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from sdm.llm.self_training.config import SelfTrainConfig
from sdm.llm.self_training.play import SelfPlay
from sdm.llm.self_training.selection import Scenarios, scores, select
from sdm.tasks.streams import Stream, stream_key

LEAST = 2  # scenarios that fine-tuning needs, one of them for validation


class NothingToLearnError(RuntimeError):
    """An iteration whose episodes cannot be trained on.

    Attributes:
        hint: how to fix it.

    """

    def __init__(self, message: str, hint: str) -> None:
        """Store the message, and a hint on how to fix the problem."""
        super().__init__(message)
        self.hint = hint


def selected(
    config: SelfTrainConfig, iteration: int, play: SelfPlay
) -> tuple[Bool[np.ndarray, "S L"], dict[str, Any]]:
    """Return which episodes of an iteration are kept, and a description.

    Raises:
        NothingToLearnError: if the model puts too much probability on texts that are
            no action, or fewer than two scenarios have a kept episode.

    """
    if play.invalid is not None and not play.invalid <= config.invalid_limit:
        raise NothingToLearnError(
            f"iteration {iteration}: the model puts {100 * play.invalid:.1f} % of its "
            f"probability on texts that are no action, more than the limit of "
            f"{100 * config.invalid_limit:g} %",
            _hint(config, iteration),
        )
    scored = scores()[config.select]
    size = len(play.played.action)
    scenarios = Scenarios(config.tasks(size, iteration), play.tasks, play.played)
    score = scored.score(scenarios)
    key = jax.random.fold_in(stream_key(config.seed, Stream.SELF_TIES), iteration)
    kept = select(score, config.keep, key=key, across=scored.across)
    used = kept.any(-1)
    if used.sum() < LEAST:
        raise NothingToLearnError(
            f"iteration {iteration}: {int(used.sum())} of {size} scenarios have a "
            f"spread in {config.select}, so there is nothing to select from",
            "raise `--temperature` or `--episodes`, or stop after the iteration before",
        )
    returns = scenarios.returns
    return kept, {
        "iteration": iteration,
        "select": config.select,
        "scenarios": size,
        "dropped": int((~used).sum()),
        "kept": int(kept.sum()),
        "invalid_mass": play.invalid,
        "played_return_mean": float(returns.mean()),
        "kept_return_mean": float(returns[kept].mean()),
        "seconds": play.seconds,
    }


def _hint(config: SelfTrainConfig, iteration: int) -> str:
    """Return what helps a model that emits texts that are no action."""
    limit = "or raise `--invalid-limit`"
    if iteration > 1:
        return f"lower `--learning-rate`, {limit}"
    if config.random_scenarios:
        return f"raise `--start-scenarios` or `--epochs`, {limit}"
    return f"train on random play first, with `--start-scenarios 100`, {limit}"
