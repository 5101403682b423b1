"""What a task family is: a recipe for drawing decision tasks that differ in parameters.

A *family* (energy management, inventory control, …) and a *kind* of model (mdp, pomdp,
apomdp) are independent: a family poses its tasks in the kinds that it lists. A task is
its parameters; `model` turns a batch of parameters into a batch of models.

To add a family, subclass `Family`, give it `spaces`, `parameters` and `model`, and
register it (docs/families.md). Nothing else in the package needs to know about it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.models import APOMDP, MDP, POMDP, batch_shape

Kind = Literal["mdp", "pomdp", "apomdp"]
Split = Literal["train", "test"]
KINDS: tuple[Kind, ...] = ("mdp", "pomdp", "apomdp")
HIDDEN: tuple[Kind, ...] = ("pomdp", "apomdp")

# Arrays by name, tasks leading: the hidden parameters of a batch of tasks.
Params = Mapping[str, Array]

# Of ambiguous tasks, the entry of `Params` with the random key of each ambiguity set.
SET_KEY = "set_key"
PRIOR_POINTS = 64


@dataclass(frozen=True)
class Component:
    """One coordinate of what an agent sees.

    Attributes:
        name: a noun, as people write it: `energy`, `stock`.
        size: number of values, counted from 0.
        values: a name for each value; () where the number says it.

    """

    name: str
    size: int
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` where the names do not match the size."""
        if self.size < 1:
            raise ValueError(f"{self.name}: size = {self.size}: must be 1 or more")
        if self.values and len(self.values) != self.size:
            raise ValueError(
                f"{self.name}: {len(self.values)} names for {self.size} values"
            )


@dataclass(frozen=True)
class Spaces:
    """What an agent sees and does in a family's tasks, and how it is written.

    States and symbols are numbered row by row over their components: with components
    of sizes (3, 4), state 5 is (1, 1).

    Attributes:
        state: components of a state, which is what an agent sees of an MDP.
        actions: a name for each action.
        symbol: components of a symbol, which is what an agent sees of a POMDP or an
            APOMDP; () where symbols are numbered like states.
        duplicates: groups of actions that are one action under several names.
        rewards: every reward that a decision can pay, where rewards tell the agent
            something; () where what is seen and done determines them.
        hidden_rewards: the same of a POMDP or an APOMDP, where rewards tell something
            there only.

    """

    state: tuple[Component, ...]
    actions: tuple[str, ...]
    symbol: tuple[Component, ...] = ()
    duplicates: tuple[tuple[int, ...], ...] = ()
    rewards: tuple[float, ...] = ()
    hidden_rewards: tuple[float, ...] = ()

    def levels(self, kind: Kind) -> tuple[float, ...]:
        """Rewards that tell an agent something; () where they tell nothing."""
        return self.rewards if kind == "mdp" else self.rewards or self.hidden_rewards

    def seen(self, kind: Kind) -> tuple[Component, ...]:
        """Components of an observation."""
        return self.state if kind == "mdp" or not self.symbol else self.symbol

    @property
    def states(self) -> int:
        """Number of states."""
        return size_of(self.state)

    def symbols(self, kind: Kind) -> int:
        """Number of different observations."""
        return size_of(self.seen(kind))

    def merged(self, action: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """Replace each action by the lowest of those that are the same action."""
        table = list(range(len(self.actions)))
        for group in self.duplicates:
            for each in group:
                table[each] = min(group)
        return jnp.asarray(table, jnp.int32)[action]


def size_of(components: tuple[Component, ...]) -> int:
    """Number of combinations of the components' values."""
    size = 1
    for component in components:
        size *= component.size
    return size


@dataclass(frozen=True)
class Defaults:
    """Numbers that the commands use unless told otherwise.

    Attributes:
        horizon: decisions per episode.
        tasks: training tasks; None for all there are.
        trajectories: oracle episodes per training task.
        random_trajectories: episodes of random actions per training task.
        test_tasks: test tasks; None for all there are.
        test_trajectories: episodes per test task.
        observes_reward: kinds in which the agent sees its rewards.
        stationary: whether an action that is optimal at stage 0 is optimal at every
            stage; labels and networks then ignore the stage, and ties between optimal
            actions are broken at random.

    """

    horizon: int = 10
    tasks: int | None = 3200
    trajectories: int = 15
    random_trajectories: int = 0
    test_tasks: int | None = 100
    test_trajectories: int = 30
    observes_reward: frozenset[Kind] = frozenset()
    stationary: bool = False


class WeightedParams(NamedTuple):
    """A prior with finite support: candidate parameters and their probabilities.

    Attributes:
        params: candidates, one a row.
        weight: probability of each.

    """

    params: Params
    weight: Float[Array, " G"]


@runtime_checkable
class TaskFamily(Protocol):
    """What the package asks of a family; `Family` answers most of it.

    Attributes:
        name: what the command line calls it.
        kinds: kinds of model that it can pose.

    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kinds(self) -> frozenset[Kind]: ...  # noqa: D102

    @property
    def spaces(self) -> Spaces:
        """What agents see and do."""
        ...

    @property
    def defaults(self) -> Defaults:
        """Numbers that the commands use unless told otherwise."""
        ...

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Draw the parameters of tasks `first`, ..., `first + n - 1` of a key.

        A task depends on the key and its own index only, so that any slice of a set of
        tasks holds the same tasks. `split` says whether they are to train on or to test
        with; families whose tasks are listed must not share any between the two.
        """
        ...

    def model(self, params: Params, kind: Kind) -> MDP | POMDP | APOMDP:
        """Make the models of a batch of parameters; JAX must be able to trace it.

        For `apomdp`, `params` also holds `set_key`: one random key a task, from which
        its ambiguity set is drawn.
        """
        ...

    def prior(self) -> WeightedParams:
        """Give the candidates that Bayesian policies choose between."""
        ...

    def divergence(self, params: Params, model: APOMDP) -> Float[Array, "B K"]:
        """KL divergence of each model of an ambiguity set to the first, in nats."""
        ...

    def available(self, split: Split) -> int | None:
        """Count the tasks of a split; None where there is no end of them."""
        ...

    def covers(self, trained_on: "TaskFamily") -> str | None:
        """Say what test tasks here have in common with training tasks there.

        None where no test task is a training task.
        """
        ...

    def config(self) -> dict[str, Any]:
        """Give what the family is made of, as JSON can write it."""
        ...


@runtime_checkable
class ConjugateFamily(TaskFamily, Protocol):
    """A family in which visible moves tell of the parameters by a few counts only.

    Its models must be linear in the parameters: the posterior-mean model is then the
    model of the posterior mean, and the exact Bayes-adaptive plan is a plan over states
    and counts (Duff, 2002).

    Attributes:
        counts: how many counts there are.

    """

    @property
    def counts(self) -> int: ...  # noqa: D102

    def tally(
        self,
        state: Int[np.ndarray, "*B"],
        action: Int[np.ndarray, "*B"],
        following: Int[np.ndarray, "*B"],
    ) -> Int[np.ndarray, "*B C"]:
        """Say what each move adds to the counts."""
        ...

    def posterior_mean(self, counts: Int[np.ndarray, "*B C"]) -> Params:
        """Mean of the parameters given the counts."""
        ...


@dataclass(frozen=True)
class Family:
    """A family's answers to what most families answer alike.

    Subclass it as a frozen dataclass: its fields are the family's options. It needs
    `spaces`, `parameters` and `model`.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp"})
    defaults: ClassVar[Defaults] = Defaults()

    def prior(self) -> WeightedParams:
        """Give equal weight to parameters drawn as training tasks are."""
        drawn = self.parameters(jax.random.key(0), PRIOR_POINTS, split="train")  # type: ignore[attr-defined]
        return WeightedParams(drawn, jnp.full(PRIOR_POINTS, 1 / PRIOR_POINTS))

    def divergence(self, params: Params, model: APOMDP) -> Float[Array, "B K"]:
        """Mean over all rows of transition and observation."""
        from sdm.tasks.ambiguity import set_divergence

        return set_divergence(model)

    def available(self, split: Split) -> int | None:
        """Tasks are drawn from a distribution: there is no end of them."""
        return None

    def covers(self, trained_on: TaskFamily) -> str | None:
        """Test and training tasks are drawn independently."""
        return None

    def config(self) -> dict[str, Any]:
        """Give the fields."""
        return dataclasses.asdict(self)


def poses(family: TaskFamily, kind: str) -> Kind:
    """Return `kind`, if the family can pose it.

    Raises:
        ValueError: if it cannot.

    """
    for known in KINDS:
        if known == kind and known in family.kinds:
            return known
    able = ", ".join(known for known in KINDS if known in family.kinds)
    raise ValueError(
        f"family `{family.name}` poses no {kind} tasks, found kind {kind!r}: "
        f"it poses {able}"
    )


def count_of(model: MDP | POMDP | APOMDP) -> int:
    """Number of tasks in a batch with one leading axis."""
    (tasks,) = batch_shape(model)
    return tasks
