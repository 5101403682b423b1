"""Beliefs that a depth-first search has reached, and what is known of them."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from sdm.solvers_jax.search_bounds import Points, Vectors
from sdm.solvers_jax.search_model import SearchModel


class Stage:
    """Bounds of the values at one stage; without a horizon, there is one stage."""

    def __init__(
        self,
        informed: Float[np.ndarray, "S A"],
        blind: Float[np.ndarray, "S A"],
        symbols: int,
    ) -> None:
        """Start with the informed bound, and policies that repeat one action."""
        self.points = Points(informed)
        self.vectors = Vectors(len(informed), symbols)
        for a, value in enumerate(blind.T):
            self.vectors.rows.append(value=value, action=a, after=a)


class Block:
    """Beliefs after one action, by symbol.

    Attributes:
        states: states that are possible after the action.
        joint: probability of each possible symbol and of these states.
        symbols: the possible symbols.
        mass: their probabilities.

    """

    def __init__(
        self, model: SearchModel, states: np.ndarray, belief: np.ndarray, a: int
    ) -> None:
        """Predict the next states and symbols."""
        ahead = model.predicted(states, belief, a)
        self.states = np.flatnonzero(ahead > 0)
        joint = ahead[self.states] * model.shown[a, self.states].T
        mass = joint.sum(1)
        self.symbols = np.flatnonzero(mass > 0)
        self.joint, self.mass = joint[self.symbols], mass[self.symbols]


@dataclass
class Outlook:
    """Bounds of the beliefs after one action at one stage, times their probability.

    Attributes:
        upper: upper bounds.
        base: upper bounds from the corners of the simplex only.
        lower: values of the best plans.
        plan: their indices.
        points: how many changes of points `upper` includes.
        plans: how many plans `lower` includes.

    """

    upper: Float[np.ndarray, " O"]
    base: Float[np.ndarray, " O"]
    lower: Float[np.ndarray, " O"]
    plan: Int[np.ndarray, " O"]
    points: tuple[int, int] = (0, 0)
    plans: int = 0


class Belief:
    """A belief as possible states and their probabilities, and what follows from it.

    All stages of a stationary model share it.
    """

    def __init__(
        self, states: Int[np.ndarray, " k"], chance: Float[np.ndarray, " k"]
    ) -> None:
        """Keep the states of positive probability."""
        self.states = states
        self.chance = chance
        self.blocks: dict[int, Block] = {}


@dataclass
class Node:
    """A belief at a stage, with its bounds.

    Attributes:
        t: the stage.
        paid: expected reward of each action.
        above: upper bound on the value of each action.
        upper: upper bound on the value.
        lower: value of the best plan.
        plan: its index.
        place: place of its point; None if it has none.

    """

    belief: Belief
    t: int
    paid: Float[np.ndarray, " A"]
    above: Float[np.ndarray, " A"]
    upper: float
    lower: float
    plan: int
    place: int | None = None
    outlooks: dict[int, Outlook] = field(default_factory=dict)
    children: dict[tuple[int, int], "Node"] = field(default_factory=dict)
