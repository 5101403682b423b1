"""Random variations of a Gymnasium environment with a transition table.

The environment defines P(s' | s, a), the reward of each transition, and the
distribution of the first state. Each task samples its own table around P,

    P_task(· | s, a) ~ Dirichlet(c P_ε(· | s, a)),
    P_ε(· | s, a) = (1 - ε) P(· | s, a) + ε mean_a' P(· | s, a'),

with ε ~ U(0, slip), the probability that a random action replaces the chosen one. Rows
keep their support, so that a row with one outcome stays deterministic. Rewards belong
to transitions: r(s, a) is their expectation under the task's own table.

Gymnasium's environments are single tasks; the sampling of tasks and all defaults are
ours.

Each task stores the seed of its table: even seeds are for training, odd ones for tests.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from sdm.tasks.array_checks import check_rows
from sdm.tasks.dirichlet import NUMBERS, TINY, log_gamma, normalized
from sdm.tasks.family import Component, Defaults, Family, Kind, Params, Spaces, Split
from sdm.tasks.models import MDP
from sdm.tasks.registry import FamilyError, register

if TYPE_CHECKING:
    from sdm.tasks.gymnasium_tables import TableArrays


@register
@dataclass(frozen=True)
class GymnasiumFamily(Family):
    """Tasks whose transition probabilities vary around an environment's.

    Attributes:
        env: the environment's id in `gymnasium.make`.
        discount: discount factor per stage, in [0, 1].
        concentration: concentration c of the Dirichlet distributions; larger values
            sample tables nearer to the environment's.
        slip: largest probability that a random action replaces the chosen one.

    """

    env: str
    discount: float = 0.95
    concentration: float = 20.0
    slip: float = 0.0

    name: ClassVar[str] = "gymnasium"
    defaults: ClassVar[Defaults] = Defaults(horizon=50, tasks=1000)

    def __post_init__(self) -> None:
        """Read the environment's table.

        Raises:
            FamilyError: if there is no table, or all tasks would be equal.
            ValueError: if an option is invalid.

        """
        for name in ("discount", "slip"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} = {value:g}: must lie between 0 and 1")
        if not 0 < self.concentration < np.inf:
            raise ValueError(
                f"concentration = {self.concentration:g}: must be positive and finite"
            )
        if (self._base[0].max(-1) == 1).all() and not self.slip:
            raise FamilyError(
                f"family `{self.name}`: `{self.env}` is deterministic, so that all "
                "tasks would be equal, found slip = 0",
                "pass `--slip 0.2`, the largest probability of a random action",
            )

    @cached_property
    def table(self) -> "TableArrays":
        """The environment's transition table."""
        return _read_table(self.env)

    @cached_property
    def _base(self) -> tuple[np.ndarray, ...]:
        """Possible outcomes [S, A, N] of each decision, at ε = 0 and at ε = 1.

        For each ε, probabilities and probabilities times rewards; then the next state
        of each outcome.
        """
        chance, paid, _ = self.table
        slipped, slipped_paid = (
            np.broadcast_to(x.mean(1, keepdims=True), x.shape) for x in (chance, paid)
        )
        possible = chance + self.slip * slipped > 0
        most = possible.sum(-1).max()
        # Impossible outcomes pad shorter rows.
        following = np.argsort(~possible, axis=-1, kind="stable")[..., :most]
        pick = (np.take_along_axis(x, following, -1) for x in (chance, paid))
        slip = (np.take_along_axis(x, following, -1) for x in (slipped, slipped_paid))
        return (*pick, *slip, following.astype(np.int32))

    @property
    def spaces(self) -> Spaces:
        """States and actions, numbered as in the environment."""
        states, actions, _ = self.table.transition.shape
        return Spaces(
            state=(Component("state", states),),
            actions=tuple(f"action {a}" for a in range(actions)),
        )

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample the seed of each task's table; see `TaskFamily.parameters`."""

        def one(index: Array) -> Array:
            return jax.random.bits(jax.random.fold_in(key, index), dtype=jnp.uint32)

        drawn = jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))
        even = (drawn >> jnp.uint32(1)) << jnp.uint32(1)
        return {"table": even + jnp.uint32(split == "test")}

    def model(self, params: Params, kind: Kind) -> MDP:
        """Return the models of tasks whose tables have the seeds `params["table"]`."""
        seed: Array = params["table"]
        flat = jax.vmap(self._task)(seed.reshape(-1))
        transition, reward = (x.reshape(*seed.shape, *x.shape[1:]) for x in flat)
        initial = jnp.asarray(self.table.initial, reward.dtype)
        shape = (*seed.shape, *initial.shape)
        return MDP(transition, reward, jnp.broadcast_to(initial, shape), self.discount)

    def _task(
        self, seed: UInt32[Array, ""]
    ) -> tuple[Float[Array, "S A S"], Float[Array, "S A"]]:
        """Return the transitions and rewards of a seed."""
        precision = jnp.result_type(float)
        *parts, following = self._base
        chance, paid, slipped, slipped_paid = (jnp.asarray(x, precision) for x in parts)
        # One call, since the generator is slow to compile. In single precision, so that
        # both precisions use the same random numbers.
        numbers = (NUMBERS, *following.shape)
        uniform = jax.random.uniform(
            jax.random.key(seed), (1 + math.prod(numbers),), jnp.float32, minval=TINY
        )
        share = self.slip * uniform[0].astype(precision)
        row = (1 - share) * chance + share * slipped
        earned = (1 - share) * paid + share * slipped_paid
        possible = row > 0
        shape = jnp.where(possible, self.concentration * row, 1).astype(jnp.float32)
        weight = log_gamma(uniform[1:].reshape(numbers), shape).astype(precision)
        drawn = normalized(jnp.where(possible, weight, -jnp.inf))
        reward = (drawn * earned / jnp.where(possible, row, 1)).sum(-1)
        states, actions, _ = following.shape
        where = np.ix_(range(states), range(actions), [0])[:2]
        transition = jnp.zeros((states, actions, states), precision)
        return transition.at[(*where, following)].add(drawn), reward


def _read_table(env: str) -> "TableArrays":
    """Read the table of a registered environment.

    Raises:
        FamilyError: if the environment is unknown or has no valid table.

    """
    try:
        import gymnasium
    except ImportError as error:
        raise FamilyError(
            "family `gymnasium`: needs the package `gymnasium`, which is not installed",
            "pip install 'sdm-llm[gym]'",
        ) from error
    from sdm.tasks.gymnasium_tables import read_table

    try:
        made = gymnasium.make(env)
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise FamilyError(
            f"family `gymnasium`: `{env}` cannot be created: {first}",
            "pass a registered environment with a table, such as FrozenLake-v1",
        ) from error
    try:
        table = read_table(made)
        check_rows("transition", table.transition)
        check_rows("initial", table.initial)
    except ValueError as error:
        raise FamilyError(
            f"family `gymnasium`: `{env}`: {error}",
            "pass an environment with a table, such as FrozenLake-v1",
        ) from error
    finally:
        made.close()
    return table
