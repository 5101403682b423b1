r"""Treatment of sepsis in intensive care, in hospitals that differ.

The published model (Choudhary, Gupta, Thomas, 2024, *ICU-Sepsis: a benchmark MDP built
from real medical data*) was estimated from the records of MIMIC-III. A state is one of
713 clusters of patients, or death (713), survival (714) or what follows them (715). An
action is a dose of fluids and one of vasopressors, 5 levels each: action 5 f + v gives
level f of fluids and level v of vasopressors. Survival pays 1 and all else 0, without
discount.

Few actions are *admissible* in a state, 3 on average: those seen at least 20 times in
the records. As published, another action has the mean transition probabilities of the
state's admissible ones.

A task is a hospital. The rows of its admissible actions are independent draws around
the published ones, with the same support,

    P_task(· | s, a) ~ Dirichlet(c P(· | s, a)).

With G groups, each group g has a table P_g of such draws, the same in all runs, and a
hospital of a group has rows around those of its group:

    P_g(· | s, a) ~ Dirichlet(c_G P(· | s, a)),
    P_task(· | s, a) ~ Dirichlet(c P_g(· | s, a)).

Without groups, two episodes say nothing about the rows that they did not visit; with
groups, they reveal the group. The distributions of hospitals are ours.

The arrays are those of the package `icu-sepsis` (MIT license), which is not imported.
Each task stores the seed of its table: even seeds are for training, odd ones for tests;
seed 0 stands for the table around which hospitals are drawn.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from sdm.tasks.dirichlet import NUMBERS, TINY, log_gamma, normalized
from sdm.tasks.family import (
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    Split,
    WeightedParams,
)
from sdm.tasks.icu_sepsis_tables import ACTIONS, STATES, SURVIVAL, icu_tables
from sdm.tasks.models import MDP, check_count
from sdm.tasks.ranges import check_between
from sdm.tasks.registry import register
from sdm.tasks.transitions import SparseTransition

LEVELS = 5  # of each treatment
CENTRE = 0  # seed that stands for the table around which hospitals are drawn
FATES = ("died", "survived", "left")  # of states 713 to 715, in words


def _action_name(action: int) -> str:
    pairs = zip(("fluids", "vasopressors"), divmod(action, LEVELS), strict=True)
    doses = [
        f"{drug} level {level}" if level else f"no {drug}" for drug, level in pairs
    ]
    return " and ".join(doses)


@cache
def _spaces() -> Spaces:
    sofa = icu_tables().sofa[: STATES - len(FATES)]
    clusters = (f"in cluster {s} with SOFA score {x:.0f}" for s, x in enumerate(sofa))
    patient = Component("patient", STATES, (*clusters, *FATES))
    return Spaces(state=(patient,), actions=tuple(map(_action_name, range(ACTIONS))))


@register
@dataclass(frozen=True)
class IcuSepsisFamily(Family):
    """Treatment of sepsis in hospitals around a model of intensive-care records.

    Attributes:
        concentration: concentration c of a hospital's rows; larger values draw nearer
            to the published rows, or to those of its group.
        groups: number G of groups of hospitals; 0 for hospitals without groups.
        group_concentration: concentration c_G of the groups' rows.
        discount: discount factor per stage, in [0, 1].

    """

    concentration: float = 20.0
    groups: int = 0
    group_concentration: float = 20.0
    discount: float = 1.0

    name: ClassVar[str] = "icu-sepsis"
    goal: ClassVar[str] = "treat the patient so that the patient survives"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp"})
    defaults: ClassVar[Defaults] = Defaults(horizon=20, tasks=1000, test_tasks=20)

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid option.

        The package's arrays are read when they are needed, so that experiments can be
        listed without them; a `FamilyError` then says if it is missing.
        """
        check_between(self, ("discount",))
        check_count("groups", self.groups, 0)
        for name in ("concentration", "group_concentration"):
            if not 0 < (value := getattr(self, name)) < np.inf:
                raise ValueError(f"{name} = {value:g}: must be positive and finite")

    @property
    def spaces(self) -> Spaces:
        """Clusters of patients, and pairs of doses."""
        return _spaces()

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Draw the seed of each hospital's table, and its group.

        See `TaskFamily.parameters`.
        """

        def one(index: Array) -> dict[str, Array]:
            own = jax.random.fold_in(key, index)
            bits = jax.random.bits(own, dtype=jnp.uint32)
            even = jnp.maximum((bits >> jnp.uint32(1)) << jnp.uint32(1), jnp.uint32(2))
            drawn = {"table": even + jnp.uint32(split == "test")}
            if self.groups:
                group = jax.random.randint(
                    jax.random.fold_in(own, 1), (), 0, self.groups
                )
                drawn["group"] = group.astype(jnp.int32)
            return drawn

        return jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))

    def prior(self) -> WeightedParams:
        """Return the groups' tables, equally likely; without groups, the published one.

        Without groups, candidates that are hospitals would mislead: those that fit an
        episode by chance know nothing of the rows that it did not visit.
        """
        count = self.groups or 1
        weight = jnp.full(count, 1 / count, jnp.result_type(float))
        params = {"table": jnp.full(count, CENTRE, jnp.uint32)}
        if self.groups:
            params["group"] = jnp.arange(count, dtype=jnp.int32)
        return WeightedParams(params, weight)

    def model(self, params: Params, kind: Kind) -> MDP:
        """Return the models of hospitals, whose possible next states are the same."""
        tables, seed = icu_tables(), params["table"]
        group = params["group"] if self.groups else jnp.zeros(seed.shape, jnp.int32)
        pairs = (seed.reshape(-1), group.reshape(-1))
        # Hospital by hospital, since the numbers of all draws would not fit the memory.
        chance = jax.lax.map(lambda x: self._hospital(*x), pairs)
        chance = chance.reshape(*seed.shape, *chance.shape[1:])
        lists = np.repeat(tables.successors[:, None], ACTIONS, axis=1)
        arrived = jnp.asarray(lists == SURVIVAL, chance.dtype)
        initial = jnp.asarray(tables.initial, chance.dtype)
        return MDP(
            transition=SparseTransition(jnp.asarray(lists), chance),
            reward=jnp.einsum("...san,san->...sa", chance, arrived),
            initial=jnp.broadcast_to(initial, (*seed.shape, STATES)),
            discount=self.discount,
        )

    def _hospital(
        self, seed: UInt32[Array, ""], group: Int[Array, ""]
    ) -> Float[Array, "S A N"]:
        """Return the transition probabilities of one hospital."""
        tables = icu_tables()
        rows = jnp.asarray(tables.chance, jnp.result_type(float))
        if self.groups:
            key = jax.random.fold_in(jax.random.key(CENTRE), group)
            rows = _around(key, rows, self.group_concentration)
        own = _around(jax.random.key(seed), rows, self.concentration)
        rows = jnp.where(seed == CENTRE, rows, own)
        total = jax.ops.segment_sum(rows, tables.state, STATES, indices_are_sorted=True)
        count = np.bincount(tables.state, minlength=STATES)[:, None]
        mean = total / jnp.asarray(count, rows.dtype)
        return jnp.concatenate([rows, mean])[tables.row]

    def published(self, kind: Kind = "mdp") -> MDP:
        """Return the published model, without a batch axis.

        Raises:
            ValueError: for another kind than `mdp`.

        """
        if kind != "mdp":
            raise ValueError(f"kind = {kind!r}: the published model has the kind mdp")
        return replace(self, groups=0).model({"table": jnp.uint32(CENTRE)}, kind)

    def expert(self) -> Float[Array, "S A"]:
        """Return π(a | s) of clinicians, as published; action 0 after the end."""
        return jnp.asarray(icu_tables().expert, jnp.result_type(float))

    def arrival_rewards(self) -> Float[np.ndarray, " S"]:
        """Return what arrival in each state pays: 1 for survival."""
        return np.eye(STATES)[SURVIVAL]


def _around(
    key: Key[Array, ""], rows: Float[Array, "R N"], concentration: float
) -> Float[Array, "R N"]:
    """Draw rows from Dirichlet distributions around others, with their support."""
    # One call, since the generator is slow to compile. In single precision, so that
    # both precisions use the same random numbers.
    place = np.nonzero(icu_tables().chance)
    numbers = (NUMBERS, len(place[0]))
    uniform = jax.random.uniform(key, numbers, jnp.float32, minval=TINY)
    shape = (concentration * rows[place]).astype(jnp.float32)
    weight = log_gamma(uniform, shape).astype(rows.dtype)
    return normalized(jnp.full_like(rows, -jnp.inf).at[place].set(weight))
