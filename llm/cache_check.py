"""Check before an evaluation that a cache gives the scores of whole texts.

Cached keys and values are right for most models, but not for all: some count padding as
distance, some keep other states. A few episodes of the test's oracle are scored both
ways, at the first decisions and at the last one, with padding in the cache. If the
scores differ by more than rounding, the evaluation reads whole texts.

Each difference of log-probabilities is divided by 1 + |log-probability|. The root mean
square of a decision may be √ε, where ε is the precision of the model's numbers: 3e-4 in
float32, 0.09 in bfloat16. Rounding errors of the layers add up to a multiple of ε. With
`smollm2`, the largest of 720 differences is 2 % of √ε in float32, 67 % in bfloat16.
"""

import warnings
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float

from sdm.llm.bases import CausalModel
from sdm.llm.cached_rows import CachedRows, WindowError, why_uncached
from sdm.llm.context import ContextError
from sdm.llm.memory import OutOfMemoryError
from sdm.llm.policy import EpisodeTexts, LanguageModelPolicy
from sdm.llm.scoring import Rows, Tokens
from sdm.llm.whole_rows import WholeRows
from sdm.tasks.rollout import Trajectory

TASKS, EPISODES = 2, 2  # to score both ways
FIRST = 2  # decisions to compare, besides the last one
PADDING = 8  # columns of the cache to mask in every other row before each of them
WHOLE = "whole texts are read at every decision, which takes longer"

Begin = Callable[[Sequence[Tokens]], Rows]


class WrongCacheError(RuntimeError):
    """Scores with a cache that differ from those of whole texts."""


class RowsInWindow:
    """Rows with a cache until it outgrows the attention window, then without."""

    def __init__(self, model: CausalModel, prefixes: Sequence[Tokens]) -> None:
        """Read each prefix."""
        self.model = model
        try:
            self.rows: Rows = CachedRows(model, prefixes)
        except WindowError as error:
            self._leave_cache(error)

    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Return the log-probability of each row's candidates, in nats."""
        try:
            return self.rows.score(targets, suffixes, parents)
        except WindowError as error:
            self._leave_cache(error)
            return self.rows.score(targets, suffixes, parents)

    def _leave_cache(self, error: WindowError) -> None:
        warnings.warn(f"{error}: {WHOLE}", stacklevel=3)
        self.rows = WholeRows(self.model)


class ComparedRows:
    """Rows with a cache; some scores are compared with those of whole texts."""

    def __init__(
        self, model: CausalModel, stages: set[int], prefixes: Sequence[Tokens]
    ) -> None:
        """Read each prefix.

        Args:
            model: the model.
            stages: numbers of the calls in which scores are compared.
            prefixes: tokens at the beginning of the texts.

        """
        self.cached, self.whole = CachedRows(model, prefixes), WholeRows(model)
        self.stages, self.stage = stages, 0
        self.tolerance = torch.finfo(model.dtype).eps ** 0.5

    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Return the scores with the cache.

        Raises:
            WrongCacheError: if they differ from those of whole texts.

        """
        compared = self.stage in self.stages
        if compared:
            cut = [t[: len(t) - PADDING * (i % 2)] or t for i, t in enumerate(targets)]
            self.cached.score(cut, suffixes, parents)
            parents = range(len(targets))
        found = self.cached.score(targets, suffixes, parents)
        if compared:
            order = sorted(range(len(targets)), key=lambda row: len(targets[row]))
            rows = sorted({order[0], order[-1]})  # the shortest and the longest text
            wanted = self.whole.score(
                [targets[row] for row in rows], [suffixes[row] for row in rows], rows
            )
            far = np.abs(found[rows] - wanted)
            mean_square = ((far / (1 + np.abs(wanted))) ** 2).mean()
            if not mean_square**0.5 <= self.tolerance:  # or not a number
                raise WrongCacheError(
                    "log-probabilities with cached keys and values differ by "
                    f"{far.max():.2g} from those of whole texts"
                )
        self.stage += 1
        return found


def why_whole(
    model: CausalModel,
    make_policy: Callable[[Begin], LanguageModelPolicy],
    episodes: Trajectory,
) -> str | None:
    """Return why a model must read whole texts in an evaluation; None if it need not.

    Args:
        model: the model.
        make_policy: makes the policy of the first tasks, which scores in given rows.
        episodes: episodes of these tasks, to be scored both ways.

    Raises:
        ValueError: if the model cannot score whole texts either.

    """
    horizon = episodes.action.shape[-1]
    stages = {*range(FIRST), horizon - 1}
    try:
        if (why := why_uncached(model)) is None:
            rows = make_policy(lambda prefixes: ComparedRows(model, stages, prefixes))
            replay(rows, episodes, horizon)
    except (OutOfMemoryError, ContextError) as error:
        if not isinstance(error, WindowError):
            raise
        why = str(error)
    except WrongCacheError as error:
        why = str(error)
    except Exception as error:  # models without the usual cache fail in many ways
        why = f"keys and values cannot be cached ({type(error).__name__})"
    if why is not None:
        _check_whole(model, make_policy, episodes)
    return why


def _check_whole(
    model: CausalModel,
    make_policy: Callable[[Begin], LanguageModelPolicy],
    episodes: Trajectory,
) -> None:
    """Raise `ValueError` if a model cannot score the texts of the first decision."""
    try:
        replay(make_policy(lambda prefixes: WholeRows(model, prefixes)), episodes, 1)
    except (OutOfMemoryError, ContextError):
        raise
    except Exception as error:
        first = (str(error) or repr(error)).splitlines()[0]
        raise ValueError(
            f"base: a {model.config.model_type} cannot score texts: {first}"
        ) from error


def replay(policy: LanguageModelPolicy, episodes: Trajectory, stages: int) -> None:
    """Score the first decisions of episodes that were played before."""
    memory = EpisodeTexts()
    before = jnp.zeros_like(episodes.reward[..., 0])
    for t in range(stages):
        policy.action_scores(memory, episodes.observation[..., t], before)
        before = episodes.reward[..., t]
        for row, action in enumerate(np.ravel(episodes.action[..., t]).tolist()):
            memory.actions[row].append(action)
