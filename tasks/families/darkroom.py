"""Darkroom: find a hidden cell of a grid, and stay there.

States are the cells (row, column) of a square grid, row by row; an episode starts in
(0, 0). Actions are stay, up, down, left, right; a move against a wall stays. Each task
has its own goal, which nothing shows but the reward: 1 for executing *stay* on the goal
(Zhang, Aghaei, Saghafian, 2026), or, as in the original (Laskin et al., 2022; Lee et
al., 2023), 1 whenever the cell that an action leads to is the goal.

Goals are split by a seed of their own into those to train on and those held out: a
model and its test must agree on that seed, whatever else is random.
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
        size: rows of the grid, and columns.
        pays: `stay` for a reward when staying on the goal, `arrival` for one whenever
            an action ends there.
        discount: factor per stage.
        training_share: share of the goals to train on.
        split: seed that decides which.

    """

    size: int = 10
    pays: Literal["stay", "arrival"] = "stay"
    discount: float = 1.0
    training_share: float = 0.8
    split: int = 0

    name: ClassVar[str] = "darkroom"
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
        """Raise `ValueError` for a size, a reward or a split that makes no task."""
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
        """A cell is seen by its row and column; a reward tells where the goal is."""
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
        """List goals of a split; the last one repeats where there are no more."""
        goals = self.goals(held_out=split == "test")
        index = first + jnp.arange(n, dtype=jnp.int32)
        return {"goal": jnp.take(goals, index, mode="clip")}

    def model(self, params: Params, kind: Kind) -> MDP:
        """Make the models of tasks with the goals `params["goal"]`."""
        return self.mdp(params["goal"])

    def prior(self) -> WeightedParams:
        """Every cell is equally likely to be the goal."""
        goals = jnp.arange(self.states, dtype=jnp.int32)
        return WeightedParams({"goal": goals}, jnp.full(self.states, 1 / self.states))

    def available(self, split: Split) -> int:
        """Count the goals of a split."""
        return len(self.goals(held_out=split == "test"))

    def covers(self, trained_on: TaskFamily) -> str | None:
        """Count goals held out here that are among those to train on there."""
        if not isinstance(trained_on, DarkroomFamily) or trained_on.size != self.size:
            return None
        if trained_on.pays != self.pays:
            return (
                f"goals pay by {self.pays} here and by {trained_on.pays} in training: "
                f"pass `--pays {trained_on.pays}`"
            )
        held_out = self.goals(held_out=True)
        met = int(jnp.isin(held_out, trained_on.goals(held_out=False)).sum())
        if not met:
            return None
        return (
            f"{met} of the {len(held_out)} goals held out are training goals: pass "
            f"`--split {trained_on.split}`, with which it was trained"
        )

    def goals(self, *, held_out: bool) -> Int[Array, " G"]:
        """Goals to train on, or those held out, in the order of their tasks."""
        order = jax.random.permutation(
            jax.random.key(self.split), jnp.arange(self.states, dtype=jnp.int32)
        )
        count = min(max(1, round(self.training_share * self.states)), self.states - 1)
        return order[count:] if held_out else order[:count]

    def mdp(self, goal: Int[Array, "*B"]) -> MDP:
        """Tasks with these goals."""
        leads_to = self._leads_to()
        moved = jax.nn.one_hot(leads_to, self.states, dtype=float)
        cell = np.arange(self.states)
        pays_in = np.full_like(leads_to, -1)  # the goal that makes (s, a) pay
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
        """Cell that each action leads to."""
        cells = np.indices((self.size, self.size)).reshape(2, -1).T  # [S, 2]
        after = np.clip(cells[:, None] + np.asarray(self.moves), 0, self.size - 1)
        return (after[..., 0] * self.size + after[..., 1]).astype(np.int32)
