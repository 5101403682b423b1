"""Treatment of sepsis (Oberst and Sontag, 2019), in hospitals that differ.

A patient has or has not diabetes, which never changes, four vital signs and three
treatments. Each action says which treatments are on. One step, in this order:

1. Antibiotics turn high heart rate and high blood pressure to normal; their withdrawal
   turns normal ones to high. Otherwise, both fluctuate.
2. Ventilation turns low oxygen to normal; its withdrawal turns normal to low.
   Otherwise, oxygen fluctuates.
3. Vasopressors raise blood pressure, more in diabetics, and diabetics' glucose; their
   withdrawal lowers blood pressure. Glucose fluctuates while they are off.

A patient without abnormal vitals and treatments is discharged (+1); with three or more
abnormal vitals dies (-1). Both end the episode: the state stays, and pays nothing.

In the kind `pomdp`, agents do not see whether the patient has diabetes, or also not the
glucose. They see all other components, so that tasks have mixed observability.

Source: Oberst and Sontag (2019), *Counterfactual off-policy evaluation with
Gumbel-max structural causal models*, whose probabilities are the centres of the ranges
here. In their simulator, the glucose of a patient without diabetes that goes up lands
on low from any level above; `as_published` keeps that. The ranges are ours.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import sparse

from sdm.tasks.family import Defaults, Family, Kind, Params, Spaces, Split, poses
from sdm.tasks.hidden_components import Layout, hide, layout, split_states
from sdm.tasks.models import MDP
from sdm.tasks.momdp import MOMDP
from sdm.tasks.ranges import check_between
from sdm.tasks.registry import register
from sdm.tasks.sepsis_dynamics import (
    EFFECTS,
    SIZES,
    STATE,
    for_all,
    initial,
    next_states,
    tables,
)
from sdm.tasks.transitions import SparseTransition

FLUCTUATION, DIABETIC = 0.1, 0.2
LEAST, MOST = 0.05, 0.95  # limits of the drawn effects
# The publication's physician: discount, and probability of the best action.
PATIENCE, CARE = 0.99, 0.95
CONVERGED = 1e-10  # of values in units of reward
EQUAL = 1e-7  # differences of values that are rounding, also of single precision

# Values of the option `hidden`, and the components that they hide.
HIDDEN = {"diabetes": ("diabetes",), "diabetes and glucose": ("diabetes", "glucose")}
TREATMENTS = ("antibiotics", "ventilation", "vasopressors")  # from the highest bit


def _action_name(action: int) -> str:
    chosen = [
        x for x, bit in zip(TREATMENTS, f"{action:03b}", strict=True) if bit > "0"
    ]
    return " and ".join(chosen) or "nothing"


@register
@dataclass(frozen=True)
class SepsisFamily(Family):
    """Treatment of sepsis in hospitals that differ in the effects of treatments.

    Attributes:
        spread: largest distance of an effect's probability from the published one;
            probabilities stay between 0.05 and 0.95.
        fluctuation_min: smallest probability that a vital goes up, or down, by itself.
        fluctuation_max: largest probability of that.
        diabetic_min: smallest share of patients with diabetes.
        diabetic_max: largest share of patients with diabetes.
        as_published: whether glucose rises as in the published simulator.
        hidden: what agents do not see in the kind pomdp, `diabetes` or `diabetes and
            glucose`.
        discount: discount factor per stage, in [0, 1].

    """

    spread: float = 0.2
    fluctuation_min: float = 0.05
    fluctuation_max: float = 0.2
    diabetic_min: float = 0.05
    diabetic_max: float = 0.5
    as_published: bool = True
    hidden: str = "diabetes"
    discount: float = 1.0

    name: ClassVar[str] = "sepsis"
    goal: ClassVar[str] = "bring all vitals to normal, and stop all treatments"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp", "pomdp"})
    defaults: ClassVar[Defaults] = Defaults(
        horizon=20, tasks=1000, test_tasks=100, atol=0.004
    )

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid option."""
        if self.hidden not in HIDDEN:
            raise ValueError(
                f"hidden = {self.hidden!r}: must be one of {', '.join(HIDDEN)}"
            )
        ranges = ("fluctuation_min", "fluctuation_max", "diabetic_min", "diabetic_max")
        check_between(self, ("spread", "discount", *ranges))
        check_between(self, ("fluctuation_max",), most=0.5)
        for name in ("fluctuation", "diabetic"):
            low, high = (getattr(self, f"{name}_{end}") for end in ("min", "max"))
            if low > high:
                raise ValueError(
                    f"{name}_min = {low:g} is larger than {name}_max = {high:g}"
                )

    @property
    def spaces(self) -> Spaces:
        """Eight components of a state, and eight combinations of treatments."""
        seen = tuple(each for each in STATE if each.name not in HIDDEN[self.hidden])
        actions = tuple(map(_action_name, range(8)))
        return Spaces(state=STATE, actions=actions, symbol=seen)

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Draw the hospitals; see `TaskFamily.parameters`."""
        ranges = {
            name: (max(LEAST, x - self.spread), min(MOST, x + self.spread))
            for name, x in EFFECTS.items()
        }
        ranges["fluctuation"] = (self.fluctuation_min, self.fluctuation_max)
        ranges["diabetic"] = (self.diabetic_min, self.diabetic_max)

        def one(index: Array) -> dict[str, Array]:
            keys = jax.random.split(jax.random.fold_in(key, index), len(ranges))
            drawn = {
                name: jax.random.uniform(own, minval=low, maxval=high)
                for own, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
            }
            # Low blood pressure rises by one or by two levels: at most surely.
            both = drawn["pressure_normal"] + drawn["pressure_raised"]
            share = jnp.minimum(1.0, MOST / both)
            for name in ("pressure_normal", "pressure_raised"):
                drawn[name] = share * drawn[name]
            return drawn

        return jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))

    def model(self, params: Params, kind: Kind) -> MDP | MOMDP:
        """Return the models of hospitals, whose possible next states are the same."""
        mdp = self._observed(params)
        if kind == "mdp":
            return mdp
        return hide(mdp, _parts(self.as_published, self.hidden))

    def _observed(self, params: Params) -> MDP:
        lists = next_states(self.as_published)
        chances = tables(params, as_published=self.as_published)
        share = params["diabetic"]
        ended, stays, arrived = (
            for_all(x, share)
            for x in (lists.ended, lists.stays, lists.paid[lists.successors])
        )
        chance = jnp.ones((*share.shape, *lists.successors.shape), share.dtype)
        for name, table in chances.items():
            chance = chance * table[..., lists.entry[name]]
        chance = jnp.where(ended[..., None, None] > 0, stays, chance)
        paid = (chance * arrived).sum(-1)
        return MDP(
            transition=SparseTransition(jnp.asarray(lists.successors), chance),
            reward=jnp.where(ended[..., None] > 0, jnp.zeros_like(paid), paid),
            initial=initial(share),
            discount=self.discount,
        )

    def published(self, kind: Kind = "mdp") -> MDP | MOMDP:
        """Return the published model, without a batch axis.

        Raises:
            ValueError: if the family does not pose this kind.

        """
        values = {**EFFECTS, "fluctuation": FLUCTUATION, "diabetic": DIABETIC}
        params = {x: jnp.asarray(y) for x, y in values.items()}
        return self.model(params, poses(self, kind))

    def expert(self) -> Float[np.ndarray, "S A"]:
        """Return π(a | s) of the publication's physician, who sees all of the state.

        It is the stationary policy that is optimal with the discount 0.99, taken with
        probability 0.95, and else another action, all equally often.
        """
        lists: Any = self.published().transition
        states, actions, count = lists.successors.shape
        place = np.arange(states * actions).repeat(count)
        entries = (place, np.asarray(lists.successors).ravel())
        chance = np.asarray(lists.probabilities, float).ravel()
        shape = (states * actions, states)
        transition = sparse.csr_array((chance, entries), shape=shape)
        reward = np.asarray(self.published().reward, float)
        value, change = np.zeros(states), np.inf
        while change > CONVERGED:
            q = reward + PATIENCE * (transition @ value).reshape(reward.shape)
            change = np.abs(q.max(-1) - value).max()
            value = q.max(-1)
        # Some actions are equal: the first of them.
        equal = q >= q.max(-1, keepdims=True) - EQUAL
        best = np.eye(actions)[equal.argmax(-1)]
        return CARE * best + (1 - CARE) * (1 - best) / (actions - 1)

    def arrival_rewards(self) -> Float[np.ndarray, " S"]:
        """Return what arrival in each state pays: 1 for discharge, -1 for death."""
        return next_states(self.as_published).paid


@cache
def _parts(as_published: bool, hidden: str) -> Layout:
    """Return the layout of states by what agents see of them."""
    lists = next_states(as_published)
    names = [each.name for each in STATE]
    parts = split_states(SIZES, tuple(map(names.index, HIDDEN[hidden])))
    return layout(lists.successors, lists.possible, *parts)
