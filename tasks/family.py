"""Task families: distributions of decision tasks that differ in their parameters.

A *family* (energy management, inventory control, …) and a *kind* of model (mdp, pomdp,
apomdp) are independent: a family lists the kinds that it supports. Parameters define a
task; `model` turns a batch of parameters into a batch of models.

To add a family, subclass `Family`, define `spaces`, `parameters` and `model`, and
register the class (docs/families.md). No other code needs to change.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import APOMDP

Kind = Literal["mdp", "pomdp", "apomdp"]
Split = Literal["train", "test"]
KINDS: tuple[Kind, ...] = ("mdp", "pomdp", "apomdp")
HIDDEN: tuple[Kind, ...] = ("pomdp", "apomdp")

# Hidden parameters of a batch of tasks: arrays by name, with tasks on the first axis.
Params = Mapping[str, Array]

# Entry of `Params` with the random key of each ambiguity set, for ambiguous tasks.
SET_KEY = "set_key"
PRIOR_POINTS = 64


@dataclass(frozen=True)
class Component:
    """One coordinate of an observation.

    Attributes:
        name: a noun, such as `energy` or `stock`.
        size: number of values, numbered from 0.
        values: a name for each value; () to use the numbers.

    """

    name: str
    size: int
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` unless the size is positive and matches the names."""
        if self.size < 1:
            raise ValueError(f"{self.name}: size = {self.size}: must be 1 or more")
        if self.values and len(self.values) != self.size:
            raise ValueError(
                f"{self.name}: {len(self.values)} names for {self.size} values"
            )


@dataclass(frozen=True)
class Spaces:
    """Observation and action spaces of a family's tasks, and the names of their values.

    States and symbols are numbered in row-major order of their components: with
    components of sizes (3, 4), state 5 is (1, 1).

    Attributes:
        state: components of a state, which the agent observes in an MDP.
        actions: a name for each action.
        symbol: components of a symbol, which the agent observes in a POMDP or an
            APOMDP; () if symbols are numbered like states.
        duplicates: groups of actions that are one action under several names.
        rewards: all possible rewards of a decision, if rewards are informative; () if
            observations and actions determine the reward.
        hidden_rewards: the same for POMDPs and APOMDPs, if rewards are informative in
            these only.
        random_rewards: whether paid rewards are random; `rewards` then lists those that
            can be paid, or is () if they are continuous.

    """

    state: tuple[Component, ...]
    actions: tuple[str, ...]
    symbol: tuple[Component, ...] = ()
    duplicates: tuple[tuple[int, ...], ...] = ()
    rewards: tuple[float, ...] = ()
    hidden_rewards: tuple[float, ...] = ()
    random_rewards: bool = False

    def levels(self, kind: Kind) -> tuple[float, ...]:
        """Return the informative rewards of a kind; () if rewards are uninformative."""
        return self.rewards if kind == "mdp" else self.rewards or self.hidden_rewards

    def seen(self, kind: Kind) -> tuple[Component, ...]:
        """Return the components of an observation in models of a kind."""
        return self.state if kind == "mdp" or not self.symbol else self.symbol

    @property
    def states(self) -> int:
        """Number of states."""
        return size_of(self.state)

    def symbols(self, kind: Kind) -> int:
        """Return the number of distinct observations in models of a kind."""
        return size_of(self.seen(kind))

    def merged(self, action: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Replace each action by the lowest-numbered of its duplicates."""
        table = list(range(len(self.actions)))
        for group in self.duplicates:
            for each in group:
                table[each] = min(group)
        return jnp.asarray(table, jnp.int32)[action]


def size_of(components: tuple[Component, ...]) -> int:
    """Return the number of combinations of the components' values."""
    size = 1
    for component in components:
        size *= component.size
    return size


@dataclass(frozen=True)
class Defaults:
    """Default values of the commands' options.

    Attributes:
        horizon: decisions per episode.
        tasks: number of training tasks; None for all.
        trajectories: oracle episodes per training task.
        random_trajectories: episodes of random actions per training task.
        test_tasks: number of test tasks; None for all.
        test_trajectories: episodes per test task.
        support: demonstrations of each test task that a policy is shown.
        observes_reward: kinds of model in which the agent observes its rewards.
        stationary: whether an action that is optimal at stage 0 is optimal at every
            stage; labels and networks then ignore the stage, and ties between optimal
            actions are broken at random.
        atol: certified gap of a POMDP that is always enough, if values can be near 0.

    """

    horizon: int = 10
    tasks: int | None = 3200
    trajectories: int = 15
    random_trajectories: int = 0
    test_tasks: int | None = 100
    test_trajectories: int = 30
    support: int = 2
    observes_reward: frozenset[Kind] = frozenset()
    stationary: bool = False
    atol: float = 1e-9


class WeightedParams(NamedTuple):
    """A prior with finite support: candidate parameters and their probabilities.

    Attributes:
        params: candidates, on the first axis.
        weight: probability of each candidate.

    """

    params: Params
    weight: Float[Array, " G"]


@runtime_checkable
class TaskFamily(Protocol):
    """Interface of a task family; `Family` implements most of it.

    Attributes:
        name: name on the command line.
        kinds: supported kinds of model.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kinds(self) -> frozenset[Kind]: ...  # noqa: D102

    @property
    def spaces(self) -> Spaces:
        """Observation and action spaces."""
        ...

    @property
    def defaults(self) -> Defaults:
        """Default values of the commands' options."""
        ...

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample the parameters of tasks `first`, ..., `first + n - 1` of a key.

        A task depends only on the key and its own index, so that slices of a set of
        tasks agree. `split` selects training or test tasks. A family with finitely many
        tasks must keep the two splits disjoint.
        """
        ...

    def model(self, params: Params, kind: Kind) -> Any:
        """Return the models of a batch of parameters; JAX must be able to trace it.

        Their class is that of the kind, or `MOMDP` if agents see a part of the state.

        For `apomdp`, `params` also holds `set_key`: one random key per task, from which
        the ambiguity set is sampled.
        """
        ...

    def prior(self) -> WeightedParams:
        """Return the prior over parameters of Bayesian policies."""
        ...

    def divergence(self, params: Params, model: APOMDP) -> Float[Array, "B K"]:
        """Return the KL divergence of each model of a set to the first, in nats."""
        ...

    def available(self, split: Split) -> int | None:
        """Return the number of tasks in a split; None if it is unlimited."""
        ...

    def covers(self, trained_on: "TaskFamily") -> str | None:
        """Describe the overlap of this family's test tasks with training tasks.

        Args:
            trained_on: family of the training tasks.

        Returns:
            A description of the overlap, or None if the tasks are disjoint.

        """
        ...

    def config(self) -> dict[str, Any]:
        """Return the family's options as values that JSON can represent."""
        ...


@runtime_checkable
class NamedTasks(Protocol):
    """A family whose tasks have names."""

    def task_names(self, split: Split) -> tuple[str, ...]:
        """Return the name of each task of a split, in order."""
        ...


@dataclass(frozen=True)
class Family:
    """Base class of task families, with default implementations.

    Subclass it as a frozen dataclass: its fields are the family's options. A subclass
    must define `spaces`, `parameters` and `model`.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp"})
    defaults: ClassVar[Defaults] = Defaults()
    goal: ClassVar[str] = ""  # what the agent wants, in words, for a judge to read

    def prior(self) -> WeightedParams:
        """Return equally weighted parameters of sampled training tasks."""
        drawn = self.parameters(jax.random.key(0), PRIOR_POINTS, split="train")  # type: ignore[attr-defined]
        return WeightedParams(drawn, jnp.full(PRIOR_POINTS, 1 / PRIOR_POINTS))

    def divergence(self, params: Params, model: APOMDP) -> Float[Array, "B K"]:
        """Return the mean divergence over all rows of transition and observation."""
        from sdm.tasks.ambiguity import set_divergence

        return set_divergence(model)

    def available(self, split: Split) -> int | None:
        """Return None: tasks are sampled from a distribution."""
        return None

    def covers(self, trained_on: TaskFamily) -> str | None:
        """Return None: test and training tasks are sampled independently."""
        return None

    def config(self) -> dict[str, Any]:
        """Return the fields of the dataclass."""
        return dataclasses.asdict(self)


def poses(family: TaskFamily, kind: str) -> Kind:
    """Return `kind`, if the family supports it.

    Raises:
        ValueError: if the family does not support it.

    """
    for known in KINDS:
        if known == kind and known in family.kinds:
            return known
    able = ", ".join(known for known in KINDS if known in family.kinds)
    raise ValueError(
        f"family `{family.name}`: kind must be one of {able}, found {kind!r}"
    )
