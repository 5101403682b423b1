"""The policy of human experts, where a family comes with an estimate of it."""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.data.benchmark import Shown
from sdm.policies.prepared import Prepared, state_table
from sdm.policies.registry import register_policy
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.policy import TabularPolicy


@runtime_checkable
class HasExpert(Protocol):
    """A family with a policy of experts."""

    def expert(self) -> Float[Array, "S A"]:
        """Return the experts' π(a | s)."""
        ...


def _has_expert(family: TaskFamily, kind: Kind) -> str | None:
    """Return None for families with a policy of experts over observed states."""
    if kind != "mdp":
        return "experts observe the state"
    return None if isinstance(family, HasExpert) else "the family has no experts"


@register_policy("expert", _has_expert)
def expert(bed: Shown) -> Prepared:
    """Act like the experts, who act alike in all tasks and at all stages."""
    family = bed.config.family
    assert isinstance(family, HasExpert)
    table = family.expert()
    shape = (bed.config.tasks, bed.config.horizon, *table.shape)
    return state_table(bed, TabularPolicy(jnp.broadcast_to(table, shape)))
