"""Hidden-state models of logs: what is hidden, and how the episodes end.

States are n hidden states, then the outcomes and the end of `space`, which show their
own symbols. Hidden states show observations. Probabilities of 0 say so, and iterations
of Baum–Welch keep them.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from sdm.data.estimation.baum_welch import HiddenModel, Sequences
from sdm.data.estimation.space import Space
from sdm.data.logs import NOTHING, Logs


@dataclass(frozen=True)
class Structure:
    """Possible transitions and symbols of a model with hidden states.

    Attributes:
        space: observations, outcomes and the end.
        hidden: number of hidden states.

    """

    space: Space
    hidden: int

    @property
    def states(self) -> int:
        """Return the number of states, with outcomes and the end."""
        return self.hidden + len(self.space.outcomes) + 1

    @property
    def symbols(self) -> int:
        """Return the number of symbols: observations, outcomes and the end."""
        return self.space.end + 1

    @property
    def moves(self) -> Bool[np.ndarray, "S S"]:
        """Return which transitions are possible."""
        found = np.zeros((self.states, self.states), bool)
        found[: self.hidden, : -1 if not self.space.direct else None] = True
        found[self.hidden :, -1] = True
        return found

    @property
    def shows(self) -> Bool[np.ndarray, "S O"]:
        """Return which symbols are possible in each state."""
        found = np.zeros((self.states, self.symbols), bool)
        found[: self.hidden, : self.space.first_outcome] = True
        ends = np.arange(self.states - self.hidden)
        found[self.hidden + ends, self.space.first_outcome + ends] = True
        return found

    @property
    def starts(self) -> Bool[np.ndarray, " S"]:
        """Return which states can be the first."""
        return np.arange(self.states) < self.hidden

    def support(self) -> tuple[np.ndarray, ...]:
        """Return the possible entries of the fields of a `HiddenModel`."""
        actions = len(self.space.actions)
        return (
            self.starts,
            self.shows,
            np.broadcast_to(self.moves, (actions, *self.moves.shape)),
            np.broadcast_to(self.shows, (actions, *self.shows.shape)),
        )

    def draw(self, restarts: int, generator: np.random.Generator) -> HiddenModel:
        """Return random models to start from, on a leading axis."""

        def rows(possible: np.ndarray) -> Float[np.ndarray, "R *B N"]:
            weight = generator.standard_exponential((restarts, *possible.shape))
            weight = np.where(possible, weight, 0.0)
            return weight / weight.sum(-1, keepdims=True)

        return HiddenModel(*(jnp.asarray(rows(x)) for x in self.support()))

    def smoothed(self, counts: HiddenModel, prior: float) -> HiddenModel:
        """Return posterior means of rows, with a total pseudo-count of `prior` each."""

        def rows(weight: np.ndarray, possible: np.ndarray) -> np.ndarray:
            both = np.asarray(weight) * possible
            both = both + max(prior, 1e-9) * possible / possible.sum(-1, keepdims=True)
            return both / both.sum(-1, keepdims=True)

        fields = (counts.initial, counts.first, counts.transition, counts.observation)
        made = (
            jnp.asarray(rows(np.asarray(x), possible))
            for x, possible in zip(fields, self.support(), strict=True)
        )
        return HiddenModel(*made)


def sequences_of(logs: Logs, space: Space) -> Sequences:
    """Return the episodes of logs as symbols, and rewards without those of outcomes."""
    symbol = logs.observation[:, 1:].astype(np.int32)
    reward = logs.reward.copy()
    ended = np.flatnonzero(logs.done)
    final = logs.length[ended] - 1
    shown = np.full(len(ended), space.end)
    if len(space.outcomes):
        shown = space.first_outcome + np.searchsorted(
            space.outcomes, reward[ended, final]
        )
        reward[ended, final] = 0.0
    symbol[ended, final] = shown
    decides = logs.action != NOTHING
    return Sequences(
        first=jnp.asarray(logs.observation[:, 0].astype(np.int32)),
        action=jnp.asarray(np.maximum(logs.action, 0).astype(np.int32)),
        symbol=jnp.asarray(np.where(decides, symbol, NOTHING)),
        reward=jnp.asarray(reward),
        decides=jnp.asarray(decides),
        moves=jnp.asarray(decides & (symbol != NOTHING)),
        weight=jnp.ones(logs.episodes),
    )
