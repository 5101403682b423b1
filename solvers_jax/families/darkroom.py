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
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.models import MDP, check_count

REWARDS = ("stay", "arrival")


@dataclass(frozen=True)
class DarkroomFamily:
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
    pays: str = "stay"
    discount: float = 1.0
    training_share: float = 0.8
    split: int = 0

    name: ClassVar[str] = "darkroom"
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
        if self.pays not in REWARDS:
            raise ValueError(
                f"pays = {self.pays!r}: must be one of {', '.join(REWARDS)}"
            )
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
    def grid(self) -> int:
        """Columns of the grid, so that a state can be written as coordinates."""
        return self.size

    def goals(self, *, held_out: bool) -> Int[Array, " G"]:
        """Goals to train on, or those held out, in the order of their tasks."""
        order = jax.random.permutation(
            jax.random.key(self.split), jnp.arange(self.states, dtype=jnp.int32)
        )
        count = min(max(1, round(self.training_share * self.states)), self.states - 1)
        return order[count:] if held_out else order[:count]

    def goals_met(self, trained: "DarkroomFamily") -> int:
        """How many of the goals held out here are among those to train on there."""
        if trained.size != self.size:
            return 0
        held_out = self.goals(held_out=True)
        return int(jnp.isin(held_out, trained.goals(held_out=False)).sum())

    def expected_reward(self, chance: Float[Array, "*B S"]) -> Float[Array, "*B S A"]:
        """Mean reward where `chance` is the probability of each goal."""
        if self.pays == "arrival":
            return chance[..., self._leads_to()]
        nothing = jnp.zeros((*chance.shape, self.actions - 1), chance.dtype)
        return jnp.concatenate([chance[..., None], nothing], axis=-1)

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

    def goal_posterior(
        self,
        observation: Int[np.ndarray, "B N T"],
        action: Int[np.ndarray, "B N T"],
        reward: Float[np.ndarray, "B N T"],
    ) -> Float[np.ndarray, "B S"]:
        """What episodes say of the goal, all cells being equally likely before.

        A reward names it; no reward rules a cell out.

        Args:
            observation: cells in which decisions were made, in B tasks.
            action: the decisions.
            reward: what they paid, 0 or 1.

        Returns:
            Probability of each goal in each task.

        Raises:
            ValueError: if no goal explains a task's rewards.

        """
        cell = self._leads_to()[observation, action]
        tells = (action == 0) if self.pays == "stay" else np.ones_like(action, bool)
        tasks = len(observation)
        possible = np.ones((tasks, self.states))
        for task in range(tasks):
            paid = tells[task] & (reward[task] > 0.5)
            if paid.any():
                possible[task] = 0
                possible[task, cell[task][paid]] = 1
            else:
                possible[task, cell[task][tells[task]]] = 0
        total = possible.sum(-1, keepdims=True)
        if not total.all():
            raise ValueError(
                f"task {int((total == 0).argmax())}: no goal explains its rewards"
            )
        return possible / total
