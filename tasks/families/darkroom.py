"""Darkroom: find a hidden goal cell of a grid, and stay there.

States are the cells (row, column) of a square grid, row by row; an episode starts in
(0, 0). Actions are stay, up, down, left, right; a move against a wall does nothing.
Each task has its own goal, which only the reward reveals: 1 for the action *stay* on
the goal (Zhang, Aghaei, Saghafian, 2026) or, as in the original (Laskin et al., 2022;
Lee et al., 2023), 1 for every action that leads to the goal.

A separate seed splits the goals into training and test goals: training and evaluation
of a model must use the same split seed.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from sdm.tasks.family import (
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    Split,
    TaskFamily,
    WeightedParams,
)
from sdm.tasks.models import MDP, check_count
from sdm.tasks.registry import register

PAYS = ("stay", "arrival")


@register
@dataclass(frozen=True)
class DarkroomFamily(Family):
    """Darkroom tasks that differ in the goal.

    Attributes:
        size: number of rows and of columns of the grid.
        pays: rewarded event: `stay` (the action *stay* on the goal) or `arrival` (any
            action that leads to the goal).
        discount: discount factor per stage, in [0, 1].
        training_share: share of the goals for training, in (0, 1).
        split: random seed of the split into training and test goals.

    """

    size: int = 10
    pays: Literal["stay", "arrival"] = "stay"
    discount: float = 1.0
    training_share: float = 0.8
    split: int = 0

    name: ClassVar[str] = "darkroom"
    goal: ClassVar[str] = "Reach the hidden goal cell, and stay there."
    defaults: ClassVar[Defaults] = Defaults(
        horizon=100,
        tasks=None,
        trajectories=10,
        random_trajectories=100,
        test_tasks=None,
        test_trajectories=5,
        observes_reward=frozenset({"mdp"}),
        stationary=True,
    )
    actions: ClassVar[int] = 5
    moves: ClassVar[tuple[tuple[int, int], ...]] = (
        (0, 0),
        (-1, 0),
        (1, 0),
        (0, -1),
        (0, 1),
    )

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid size, reward, discount or split."""
        check_count("size", self.size, 2)
        check_count("split", self.split, 0, 2**32 - 1)
        if self.pays not in PAYS:
            raise ValueError(f"pays = {self.pays!r}: must be one of {', '.join(PAYS)}")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount = {self.discount:g}: must lie between 0 and 1")
        if not 0 < self.training_share < 1:
            raise ValueError(
                f"training_share = {self.training_share:g}: must lie between 0 and 1"
            )

    @property
    def states(self) -> int:
        """Number of cells."""
        return self.size**2

    @property
    def spaces(self) -> Spaces:
        """The state is a row and a column; rewards are informative about the goal."""
        return Spaces(
            state=(Component("row", self.size), Component("column", self.size)),
            actions=("stay", "up", "down", "left", "right"),
            rewards=(0.0, 1.0),
        )

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Return goals of a split; the last one repeats beyond the end of the list."""
        goals = self.goals(held_out=split == "test")
        index = first + jnp.arange(n, dtype=jnp.int32)
        return {"goal": jnp.take(goals, index, mode="clip")}

    def model(self, params: Params, kind: Kind) -> MDP:
        """Return the models of tasks with the goals `params["goal"]`."""
        return self.mdp(params["goal"])

    def prior(self) -> WeightedParams:
        """Return all cells as goals with equal weights."""
        goals = jnp.arange(self.states, dtype=jnp.int32)
        return WeightedParams({"goal": goals}, jnp.full(self.states, 1 / self.states))

    def available(self, split: Split) -> int:
        """Return the number of goals in a split."""
        return len(self.goals(held_out=split == "test"))

    def covers(self, trained_on: TaskFamily) -> str | None:
        """Describe the overlap of this family's test goals with training goals."""
        if not isinstance(trained_on, DarkroomFamily) or trained_on.size != self.size:
            return None
        if trained_on.pays != self.pays:
            return (
                f"pays must be {trained_on.pays}, as in training, found {self.pays}: "
                f"pass `--pays {trained_on.pays}`"
            )
        held_out = self.goals(held_out=True)
        met = int(jnp.isin(held_out, trained_on.goals(held_out=False)).sum())
        if not met:
            return None
        return (
            f"{met} of the {len(held_out)} test goals are training goals: pass "
            f"`--split {trained_on.split}`, as in training"
        )

    def goals(self, *, held_out: bool) -> Int[Array, " G"]:
        """Return the training goals, or the test goals, in the order of their tasks."""
        order = jax.random.permutation(
            jax.random.key(self.split), jnp.arange(self.states, dtype=jnp.int32)
        )
        count = min(max(1, round(self.training_share * self.states)), self.states - 1)
        return order[count:] if held_out else order[:count]

    def mdp(self, goal: Int[Array, "*B"]) -> MDP:
        """Return tasks with these goals."""
        leads_to = self._leads_to()
        moved = jax.nn.one_hot(leads_to, self.states, dtype=float)
        cell = np.arange(self.states)
        pays_in = np.full_like(leads_to, -1)  # the goal for which (s, a) has a reward
        if self.pays == "stay":
            pays_in[:, 0] = cell
        else:
            pays_in = leads_to
        reward = (goal[..., None, None] == pays_in[(None,) * goal.ndim]).astype(float)
        shape = (*goal.shape, self.states)
        start = jax.nn.one_hot(0, self.states, dtype=float)
        return MDP(
            transition=jnp.broadcast_to(moved, (*shape, self.actions, self.states)),
            reward=reward,
            initial=jnp.broadcast_to(start, shape),
            discount=self.discount,
        )

    def _leads_to(self) -> Int[np.ndarray, "S A"]:
        """Return the next cell of each cell and action."""
        cells = np.indices((self.size, self.size)).reshape(2, -1).T  # [S, 2]
        after = np.clip(cells[:, None] + np.asarray(self.moves), 0, self.size - 1)
        return (after[..., 0] * self.size + after[..., 1]).astype(np.int32)
