r"""Models that are estimated from logged episodes of another family's tasks.

Nobody knows the true models here: each task of the other family is replaced by what
its logs say of it. Oracles of the estimates are the plans that a user without a
simulator can make, so a model that is trained on them is trained without an oracle.

The logs are episodes of a behavior policy. Transitions have relative frequencies, and
rewards are means. A pair of a state and an action without visits is not admissible,
unless its state has none at all: such states are never reached in the estimate.
Pessimism (Jin, Yang, Wang, 2021, *Is pessimism provably efficient for offline RL?*)
lowers each reward by β / √n(s, a), since the best of several estimates is too high
where they are uncertain; β = 0 gives the naive plan.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.family import Defaults, Family, Kind, Params, Spaces, Split, TaskFamily
from sdm.tasks.models import MDP, check_count
from sdm.tasks.policy import TabularPolicy, uniform_random
from sdm.tasks.ranges import check_between
from sdm.tasks.registry import load_family, register
from sdm.tasks.rollout import Trajectory, rollout
from sdm.tasks.transitions import SparseTransition, Transition, chances

LOGS_KEY = "logs_key"  # entry of the parameters with the random key of the logs
LOGS_STREAM = 262  # makes the logs independent of the tasks
RANDOM, EXPERT = "random", "expert"


@register
@dataclass(frozen=True)
class EstimatedFamily(Family):
    """Tasks of another family, as estimated from logged episodes of each of them.

    Attributes:
        of: the other family.
        episodes: logged episodes of each task.
        length: decisions of a logged episode; the other family's horizon if 0.
        behavior: policy of the logs: `random`, or the family's `expert`.
        pessimism: β, in units of reward.

    """

    of: str = "energy"
    episodes: int = field(default=30, metadata={"option": "--logged-episodes"})
    length: int = 0
    behavior: str = RANDOM
    pessimism: float = 0.0

    name: ClassVar[str] = "estimated"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp"})

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid option, `FamilyError` for a family."""
        check_count("episodes", self.episodes, 1)
        check_count("length", self.length, 0)
        check_between(self, ("pessimism",), most=np.inf)
        if "mdp" not in self.truth.kinds:
            raise ValueError(f"of = {self.of!r}: has no fully observed tasks")
        if self.pessimism and self.truth.spaces.levels("mdp"):
            raise ValueError(
                f"pessimism = {self.pessimism:g}: must be 0, since agents read the "
                f"rewards of family `{self.of}`"
            )
        if self.behavior != RANDOM:
            if self.behavior != EXPERT or not hasattr(self.truth, EXPERT):
                raise ValueError(
                    f"behavior = {self.behavior!r}: must be `random`, or `expert` if "
                    "the family has one"
                )

    @cached_property
    def truth(self) -> TaskFamily:
        """The family whose tasks are logged."""
        return load_family(self.of, {})

    @property
    def spaces(self) -> Spaces:
        """Those of the other family."""
        return self.truth.spaces

    @property
    def defaults(self) -> Defaults:  # type: ignore[override]
        """Those of the other family; labels depend on the stage in an estimate."""
        return dataclasses.replace(self.truth.defaults, stationary=False)

    def available(self, split: Split) -> int | None:
        """Return the number of tasks of the other family."""
        return self.truth.available(split)

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample the other family's tasks, and the keys of their logs."""
        drawn = dict(self.truth.parameters(key, n, split=split, first=first))
        logs = jax.random.fold_in(key, LOGS_STREAM)
        number = first + jnp.arange(n, dtype=jnp.int32)
        keys = jax.vmap(lambda i: jax.random.fold_in(logs, i))(number)
        drawn[LOGS_KEY] = jax.random.key_data(keys)
        return drawn

    def model(self, params: Params, kind: Kind) -> MDP:
        """Return the estimated models."""
        world, played = self._played(params)
        # What is logged of an action is known of its other names.
        taken = Trajectory(
            played.observation, self.spaces.merged(played.action), played.reward
        )
        return _copied(
            estimate(world, taken, self.pessimism),
            self.spaces.merged(jnp.arange(world.reward.shape[-1], dtype=jnp.int32)),
        )

    def logged(self, params: Params) -> Trajectory:
        """Return the episodes from which the models of these parameters are estimated.

        The first axes of its arrays are tasks and episodes, the last one is decisions.
        """
        return jax.tree.map(lambda x: x[..., :-1], self._played(params)[1])

    def _played(self, params: Params) -> tuple[MDP, Trajectory]:
        """Return the true models, and episodes with one more decision than is logged.

        The last state ends the last transition.
        """
        own = {name: x for name, x in params.items() if name != LOGS_KEY}
        world = self.truth.model(own, "mdp")
        keys = jax.random.wrap_key_data(params[LOGS_KEY].astype(jnp.uint32))
        horizon = (self.length or self.truth.defaults.horizon) + 1
        played = rollout(
            keys,
            world,
            self._behavior(world, horizon),
            horizon=horizon,
            episodes=self.episodes,
        )
        return world, played

    def _behavior(self, world: MDP, horizon: int) -> TabularPolicy:
        if self.behavior == RANDOM:
            return uniform_random(world, horizon)
        expert = jnp.asarray(self.truth.expert(), world.reward.dtype)  # type: ignore[attr-defined]
        tasks = len(world.reward)
        return TabularPolicy(jnp.broadcast_to(expert, (tasks, horizon, *expert.shape)))


def estimate(world: MDP, played: Trajectory, pessimism: float) -> MDP:
    """Return the models that logged episodes show; see the module.

    Args:
        world: the true models, of which only shapes, lists of next states and the
            discount are used.
        played: episodes of T + 1 decisions, with T transitions.
        pessimism: β, in units of reward.

    """
    states, actions = world.reward.shape[-2:]
    kind = world.reward.dtype
    state, following = played.observation[..., :-1], played.observation[..., 1:]
    action, reward = played.action[..., :-1], played.reward[..., :-1]
    task = jnp.arange(len(state), dtype=jnp.int32)[:, None, None]
    at = (task, state, action)
    empty = jnp.zeros((len(state), states, actions), kind)
    visits = empty.at[at].add(jnp.ones((), kind))
    paid = empty.at[at].add(reward)
    some = jnp.maximum(visits, 1)
    first = jnp.zeros((len(state), states), kind)
    first = first.at[task[..., 0], state[..., 0]].add(jnp.ones((), kind))
    lowest = reward.min((1, 2))[:, None, None]
    seen = visits > 0
    return MDP(
        transition=_frequencies(world.transition, at, following, visits),
        reward=jnp.where(seen, paid / some, lowest) - pessimism / jnp.sqrt(some),
        initial=first / first.sum(-1, keepdims=True),
        discount=world.discount,
        admissible=seen | ~seen.any(-1, keepdims=True),
    )


def _copied(model: MDP, action: Int[Array, " A"]) -> MDP:
    """Return models in which each action is the same as one of the given ones."""
    table = chances(model.transition)[:, :, action]
    moves = model.transition
    if isinstance(moves, SparseTransition):
        table = SparseTransition(moves.successors, table)
    assert model.admissible is not None
    return dataclasses.replace(
        model,
        transition=table,
        reward=model.reward[:, :, action],
        admissible=model.admissible[:, :, action],
    )


def _frequencies(
    known: Transition,
    at: tuple[Array, Array, Array],
    following: Int[Array, "B N T"],
    visits: Float[Array, "B S A"],
) -> Transition:
    """Return relative frequencies of next states; equal ones without visits."""
    table = chances(known)
    entries = table.shape[-1]
    place = following
    if isinstance(known, SparseTransition):
        task, state, action = at
        lists = known.successors
        own = lists[state, action] if known.shared else lists[task, state, action]
        possible = (own == following[..., None]) & (
            known.probabilities[task, state, action] > 0
        )
        place = possible.argmax(-1).astype(jnp.int32)
    count = jnp.zeros(table.shape, table.dtype)
    count = count.at[(*at, place)].add(jnp.ones((), table.dtype))
    total = visits[..., None]
    found = jnp.where(total > 0, count / jnp.maximum(total, 1), 1 / entries)
    if isinstance(known, SparseTransition):
        return SparseTransition(known.successors, found)
    return found
