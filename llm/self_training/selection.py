"""Scores of episodes, and the selection of the best ones of each scenario.

A scenario is a task with L episodes of the model. The lower a score, the better the
episode. `regret` and `reward` use nothing but what was paid; a lucky episode has a good
score. `pseudo-regret` does not depend on chance, but needs the oracle's action values.

Each file in `scores` registers the scores that it defines:

    @register_score("my-score")
    def my_score(played: Scenarios) -> Float[np.ndarray, "S L"]: ...
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import jax
import numpy as np
from jaxtyping import Bool, Float, Key

from sdm.data.request import OracleConfig
from sdm.data.solved_tasks import Tasks
from sdm.storage.plugins import load_plugins
from sdm.tasks.family import KINDS, Kind
from sdm.tasks.rollout import Trajectory, discounted_return

SAME = 1e-9  # relative difference of scores that rounding can make


@dataclass(frozen=True)
class Scenarios:
    """Episodes of a model in the scenarios of an iteration.

    Attributes:
        config: configuration by which the tasks were drawn.
        tasks: the S tasks.
        played: L episodes of each.

    """

    config: OracleConfig
    tasks: Tasks
    played: Trajectory

    @property
    def returns(self) -> Float[np.ndarray, "S L"]:
        """Discounted return of each episode."""
        found = discounted_return(self.played.reward, self.tasks.world.discount)
        return np.asarray(found, np.float64)


Score = Callable[[Scenarios], Float[np.ndarray, "S L"]]


@dataclass(frozen=True)
class Scored:
    """A way to score episodes.

    Attributes:
        score: the function; lower is better.
        across: whether the best episodes of all scenarios are kept, not the best of
            each scenario.
        kinds: kinds of model that it is defined for.

    """

    score: Score
    across: bool
    kinds: Sequence[Kind]


_registered: dict[str, Scored] = {}


def register_score(
    name: str, *, across: bool = False, kinds: Sequence[Kind] = KINDS
) -> Callable[[Score], Score]:
    """Return a decorator that registers a score; see `Scored`."""

    def add(score: Score) -> Score:
        _registered[name] = Scored(score, across, kinds)
        return score

    return add


@cache
def scores() -> Mapping[str, Scored]:
    """Return every registered score by name."""
    load_plugins("sdm.llm.self_training.scores")
    return dict(_registered)


def check_score(name: str, kind: Kind) -> None:
    """Raise `ValueError` unless there is a score of this name for a kind of model."""
    known = sorted(each for each, score in scores().items() if kind in score.kinds)
    if name not in known:
        raise ValueError(
            f"select = {name!r}: must be one of {', '.join(known)} for kind {kind}"
        )


def select(
    score: Float[np.ndarray, "S L"],
    keep: int,
    *,
    key: Key[jax.Array, ""],
    across: bool = False,
) -> Bool[np.ndarray, "S L"]:
    """Return which episodes are kept: those of the lowest scores.

    Args:
        score: score of each episode.
        keep: episodes to keep per scenario.
        key: random key, which decides between equal scores.
        across: keep the best S k episodes of all, not the best k of each scenario.

    Returns:
        A mask. A scenario whose scores are all equal gives nothing to select: none of
        its episodes is kept; with `across`, this applies to all scenarios together.

    Raises:
        ValueError: if `keep` is not below the number of episodes, or a score is not
            finite.

    """
    scenarios, episodes = score.shape
    if not 1 <= keep < episodes:
        raise ValueError(
            f"keep = {keep}: must be 1 to {episodes - 1}, below the number of episodes"
        )
    if not np.isfinite(score).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(score))[0])
        raise ValueError(f"score[{place}] = {score[place]}: must be finite")
    tie = np.asarray(jax.random.uniform(key, score.shape))
    groups, number = (score, tie), keep
    if across:
        groups, number = (score.reshape(1, -1), tie.reshape(1, -1)), keep * scenarios
    values, ties = groups
    order = np.lexsort((ties, _without_rounding(values)), axis=-1)
    kept = np.zeros(values.shape, bool)
    np.put_along_axis(kept, order[:, :number], True, axis=-1)
    kept &= _spread(values)[:, None]
    return kept.reshape(score.shape)


def _without_rounding(values: Float[np.ndarray, "G N"]) -> Float[np.ndarray, "G N"]:
    """Return the scores with those that differ by rounding only made equal."""
    unit = SAME * np.maximum(1.0, np.abs(values).max(-1, keepdims=True))
    return np.round(values / unit)


def _spread(values: Float[np.ndarray, "G N"]) -> Bool[np.ndarray, " G"]:
    """Return in which groups scores differ by more than rounding."""
    exact = _without_rounding(values)
    return exact.max(-1) > exact.min(-1) + 1
