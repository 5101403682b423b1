"""Models as an MDP or a POMDP that plays the same episodes, for environments."""

from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from sdm.tasks.models import MDP, POMDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.momdp_flat import flat_mdp


class Played(NamedTuple):
    """A model that generates episodes.

    Attributes:
        world: the model.
        shown: what is observed in each state of an MDP; None for the state itself.

    """

    world: MDP | POMDP
    shown: Int[np.ndarray, " S"] | None = None


@singledispatch
def played_as(model: Any) -> Played:
    """Return a model that generates the same episodes, state by state.

    Raises:
        TypeError: if it is unknown for this class of models.

    """
    raise TypeError(f"environment: not available for {type(model).__name__} models")


@played_as.register(MDP)
@played_as.register(POMDP)
def _(model: MDP | POMDP) -> Played:
    return Played(model)


@played_as.register
def _(model: MOMDP) -> Played:
    """Return the MDP of the states (x, y, o), which shows x O + o."""
    _, hidden, _, symbols = model.sizes
    world = flat_mdp(model)
    state = np.arange(world.initial.shape[-1])
    return Played(world, state // (hidden * symbols) * symbols + state % symbols)
