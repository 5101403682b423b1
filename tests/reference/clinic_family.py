"""A small family of tasks with mixed observability, as a user would write it.

Symptoms (none, mild, severe) are seen; whether the patient has the disease, which can
heal, is not. Treatment works better in some clinics, and has a cost.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from sdm.tasks import MDP, MOMDP, Component, Defaults, Family, Spaces

# Symptoms that are listed after each one: no list has all that can follow the others.
LISTS = np.array([[0, 1], [0, 1], [1, 2]])
SHAPE = (3, 2, 2)  # symptoms, disease, actions


def dynamics(cure):
    """P(x' | x, y, a) and P(y' | x, y, a, x') of one clinic, by plain loops."""
    moves, sick = np.zeros((*SHAPE, 2)), np.zeros((*SHAPE, 2, 2))
    for x, y, a in np.ndindex(SHAPE):
        worse = (0.2, 0.8)[y] * (1 - 0.9 * a * cure)
        moves[x, y, a] = (0, 1) if x == 1 and y == 1 and a == 0 else (1 - worse, worse)
        sick[x, y, a] = (0.95, 0.05) if y == 0 else (a * cure, 1 - a * cure)
    return moves, sick


@dataclass(frozen=True)
class ClinicFamily(Family):
    """Clinics that differ in how well treatment works."""

    heals: bool = True  # else, the disease never changes

    name: ClassVar[str] = "clinic"
    kinds: ClassVar = frozenset({"mdp", "pomdp"})
    defaults: ClassVar[Defaults] = Defaults(horizon=4, tasks=6, test_tasks=4)

    @property
    def spaces(self):  # noqa: D102
        symptom = Component("symptoms", 3, ("none", "mild", "severe"))
        disease = Component("disease", 2, ("no", "yes"))
        return Spaces((symptom, disease), ("wait", "treat"), symbol=(symptom,))

    def parameters(self, key, n, *, split, first=0):  # noqa: D102
        def one(index):
            return jax.random.uniform(jax.random.fold_in(key, index), minval=0.1)

        return {"cure": jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))}

    def model(self, params, kind):  # noqa: D102
        made = self.hidden(params["cure"])
        return made if kind == "pomdp" else observed(made)

    def hidden(self, cure):
        """X = 3, Y = 2, A = 2, N = 2; probabilities are linear in `cure`."""
        ends = [dynamics(0.0), dynamics(1.0)]
        moves, sick = (
            (1 - cure.reshape(-1, *[1] * low.ndim)) * low[None]
            + cure.reshape(-1, *[1] * low.ndim) * high[None]
            for low, high in zip(*ends, strict=True)
        )
        paid = np.array([1.0, 0.5, -1.0])[:, None, None] - np.array([0.0, 0.3])
        first = np.array([[0.3, 0.1], [0.3, 0.2], [0.0, 0.1]])
        count = len(cure)
        return MOMDP(
            transition=moves,
            reward=jnp.broadcast_to(paid, (count, *SHAPE)),
            initial=jnp.broadcast_to(first, (count, 3, 2)),
            discount=0.95,
            successors=np.repeat(LISTS[:, None], 2, axis=1),
            hidden_transition=sick if self.heals else None,
        )


def observed(model):
    """The MDP of symptoms and disease, as dense arrays that JAX can trace."""
    count = len(model.initial)
    same = jnp.asarray(np.eye(3)[LISTS], model.reward.dtype)  # [X, N, X']
    if model.hidden_transition is None:
        law = jnp.einsum("bxyan,xnu,yz->bxyauz", model.transition, same, jnp.eye(2))
    else:
        law = jnp.einsum(
            "bxyan,xnu,bxyanz->bxyauz", model.transition, same, model.hidden_transition
        )
    return MDP(
        law.reshape(count, 6, 2, 6),
        model.reward.reshape(count, 6, 2),
        model.initial.reshape(count, 6),
        model.discount,
    )
