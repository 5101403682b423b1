r"""Garnets: random MDPs and POMDPs without structure.

A task is a random table (Archibald, McKinnon, Thomas, 1995). In each state s, each
action a has b successors, sampled from the S states without replacement. Their
probabilities are the lengths of the b intervals into which b - 1 uniform numbers divide
[0, 1]. The reward of a decision (s, a) is 0 with probability z (the reward sparsity),
and otherwise uniform on 1/L, 2/L, ..., 1. The first state is uniformly random.

In the POMDP, a state shows b_o of O symbols, sampled and weighted in the same way. They
are independent of the action, and also observed before the first action.

Each task samples its own table and stores its seed: even seeds are for training, odd
ones for tests. All tasks share each row (s, a), with its reward, and each row of
symbols with probability h. With h = 0, tasks share nothing that can be memorised: a
policy must infer the task from its demonstrations.

Rewards differ between tasks, so that agents observe them.

Archibald et al. draw the rewards from continuous distributions; the grid of rewards,
the symbols, the shared rows and all defaults are ours.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from sdm.tasks.family import Component, Defaults, Family, Kind, Params, Spaces, Split
from sdm.tasks.models import MDP, POMDP, check_count
from sdm.tasks.ranges import check_between
from sdm.tasks.registry import register

COMMON = 0  # seed of the rows that all tasks share


@register
@dataclass(frozen=True)
class GarnetFamily(Family):
    """Garnet tasks, each with its own random table.

    Attributes:
        states: number S of states.
        actions: number A of actions.
        branching: number b of successors of each state and action.
        sparsity: probability z that the reward of a decision is 0.
        levels: number L of positive rewards, 1/L, ..., 1.
        symbols: number O of symbols of a POMDP.
        shown: number b_o of symbols that a state can show.
        shared: probability h that all tasks share a row.
        discount: discount factor per stage, in [0, 1].

    """

    states: int = 5
    actions: int = 3
    branching: int = 2
    sparsity: float = 0.5
    levels: int = 2
    symbols: int = 5
    shown: int = 2
    shared: float = 0.0
    discount: float = 0.95

    name: ClassVar[str] = "garnet"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp", "pomdp"})
    defaults: ClassVar[Defaults] = Defaults(observes_reward=frozenset({"mdp", "pomdp"}))

    def __post_init__(self) -> None:
        """Raise `ValueError` for invalid sizes or probabilities."""
        for name in ("states", "actions", "levels", "symbols"):
            check_count(name, getattr(self, name), 1)
        check_count("branching", self.branching, 1, self.states)
        check_count("shown", self.shown, 1, self.symbols)
        check_between(self, ("sparsity", "shared", "discount"))

    @property
    def spaces(self) -> Spaces:
        """Numbered states, actions and symbols, and the grid of rewards."""
        return Spaces(
            state=(Component("state", self.states),),
            actions=tuple(f"action {a}" for a in range(self.actions)),
            symbol=(Component("symbol", self.symbols),),
            rewards=tuple(level / self.levels for level in range(self.levels + 1)),
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

    def model(self, params: Params, kind: Kind) -> MDP | POMDP:
        """Return the models of tasks whose tables have the seeds `params["table"]`."""
        seed: Array = params["table"]
        tables = self._tables(seed.reshape(-1))
        transition, reward, seen = (
            x.reshape(*seed.shape, *x.shape[1:]) for x in tables
        )
        shape = reward.shape[:-1]
        initial = jnp.full(shape, 1 / self.states, reward.dtype)
        if kind == "mdp":
            return MDP(transition, reward, initial, self.discount)
        every = jnp.repeat(seen[..., None, :, :], self.actions, axis=-3)
        return POMDP(transition, every, reward, initial, self.discount, seen)

    @partial(jax.jit, static_argnums=0)
    def _tables(
        self, seeds: UInt32[Array, " B"]
    ) -> tuple[Float[Array, "B S A S"], Float[Array, "B S A"], Float[Array, "B S O"]]:
        """Return transitions, rewards and symbols of each seed, with shared rows."""
        everything = jnp.concatenate([jnp.full(1, COMMON, jnp.uint32), seeds])
        # Random numbers per row: b successors, their probabilities, reward, sharing.
        wide, narrow = self.states + self.branching - 1, self.symbols + self.shown - 1
        moves, shows = (
            self.states * self.actions * (wide + 3),
            self.states * (narrow + 1),
        )

        def draw(seed: Array) -> Array:
            # One call, since the generator is slow to compile. In single precision, so
            # that both precisions use the same random numbers.
            return jax.random.uniform(
                jax.random.key(seed), (moves + shows,), jnp.float32
            )

        drawn = jax.vmap(draw)(everything).astype(jnp.result_type(float))
        u = drawn[:, :moves].reshape(-1, self.states, self.actions, wide + 3)
        v = drawn[:, moves:].reshape(-1, self.states, narrow + 1)
        pays = u[..., wide] >= self.sparsity
        level = jnp.minimum(1 + jnp.floor(u[..., wide + 1] * self.levels), self.levels)
        transition = _rows(u[..., :wide], self.states)
        reward = jnp.where(pays, level / self.levels, 0)
        seen = _rows(v[..., :narrow], self.symbols)
        taken, shown = u[1:, ..., wide + 2] < self.shared, v[1:, ..., -1] < self.shared
        return (
            jnp.where(taken[..., None], transition[:1], transition[1:]),
            jnp.where(taken, reward[:1], reward[1:]),
            jnp.where(shown[..., None], seen[:1], seen[1:]),
        )


def _rows(uniform: Float[Array, "*R W"], width: int) -> Float[Array, "*R N"]:
    """Return distributions over `width` outcomes, made from uniform numbers.

    The first `width` numbers rank the outcomes, and the lowest ranks are possible; the
    other numbers divide [0, 1] into their probabilities.
    """
    cuts = jnp.sort(uniform[..., width:], axis=-1)
    ends = jnp.pad(cuts, [(0, 0)] * (cuts.ndim - 1) + [(1, 0)])
    chance = jnp.diff(ends, axis=-1, append=jnp.ones_like(ends[..., :1]))
    possible = jnp.argsort(uniform[..., :width], axis=-1)[..., : chance.shape[-1]]
    hot = jax.nn.one_hot(possible, width, dtype=chance.dtype)
    return (hot * chance[..., None]).sum(-2)
