r"""Ambiguity sets: models near a nominal one, in Kullback-Leibler divergence.

A perturbed model has every row drawn from Dirichlet(concentration × row), which keeps
the support. It is accepted if its divergence to the nominal model,

    mean over rows of  Σ_x P_k(x) log( P_k(x) / P_1(x) ),

is at most the radius, and drawn again otherwise (Zhang, Aghaei, Saghafian, 2026). The
radius 0.05 and the concentration 50 are ours.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sdm.tasks.models import APOMDP, POMDP, check_count

MAX_TRIES = 1000


@runtime_checkable
class Ambiguous(Protocol):
    """A configuration of ambiguity sets.

    Attributes:
        models: K, the number of models; the first is the nominal one.
        alpha: weight of the worst model.
        radius: largest divergence to the nominal model, in nats.
        concentration: of the Dirichlet distributions that perturb its rows.

    """

    @property
    def models(self) -> int: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def radius(self) -> float: ...  # noqa: D102
    @property
    def concentration(self) -> float: ...  # noqa: D102


class AmbiguityError(ValueError):
    """No perturbed model was close enough to the nominal one."""

    def __init__(self, radius: float, concentration: float) -> None:
        """Say what was tried."""
        super().__init__(
            f"radius = {radius:g} cannot be met: of {MAX_TRIES} models drawn with "
            f"concentration {concentration:g}, none is so near"
        )
        self.hint = (
            f"take a larger radius, or a concentration above {concentration:g}, which "
            "draws nearer models"
        )


def divergence(
    perturbed: Sequence[Float[Array, "..."]], nominal: Sequence[Float[Array, "..."]]
) -> Float[Array, ""]:
    """Mean over all rows of KL(perturbed row || nominal row), in nats."""
    total, rows = jnp.zeros(()), 0
    for new, old in zip(perturbed, nominal, strict=True):
        ratio = jnp.where(new > 0, new, 1) / jnp.where(new > 0, old, 1)
        total = total + (new * jnp.log(ratio)).sum()
        rows += old[..., 0].size
    return total / rows


def set_divergence(model: APOMDP) -> Float[Array, "B K"]:
    """Return the divergence of each model of a batch of sets to the first, in nats."""

    def of_task(*parts: Array) -> Array:
        nominal = [part[0] for part in parts]
        return jax.vmap(lambda *k: divergence(k, nominal))(*parts)

    return jax.vmap(of_task)(model.transition, model.observation)


def nearby_pomdps(
    nominal: POMDP, keys: Key[Array, " B"], family: "Ambiguous"
) -> APOMDP:
    """Return ambiguity sets: the nominal models and perturbations of their rows.

    Args:
        nominal: a batch of B tasks; the first model of each set.
        keys: one a task.
        family: has `models` (K), `radius`, `concentration` and `alpha`.

    Raises:
        AmbiguityError: if the radius cannot be met; not while JAX traces.

    """
    others = jax.vmap(lambda key: jax.random.split(key, family.models - 1))(keys)
    parts = [nominal.transition, nominal.observation]
    first = nominal.initial_observation
    if first is not None:
        parts.append(first)
    drawn, far = perturbed_models(
        others, parts, radius=family.radius, concentration=family.concentration
    )
    check_met(far, family.radius, family.concentration)
    sets = [
        jnp.concatenate([one[:, None], more], axis=1)
        for one, more in zip(parts, drawn, strict=True)
    ]
    return APOMDP(
        transition=sets[0],
        observation=sets[1],
        reward=nominal.reward,
        initial=nominal.initial,
        alpha=family.alpha,
        discount=nominal.discount,
        initial_observation=sets[2] if first is not None else None,
    )


def check_met(divergence: Array, radius: float, concentration: float) -> None:
    """Raise `AmbiguityError` where no draw met the radius; not while JAX traces."""
    traced = isinstance(divergence, jax.core.Tracer)
    if not traced and np.isnan(divergence).any():
        raise AmbiguityError(radius, concentration)


def _draw(
    key: Key[Array, ""], nominal: Sequence[Array], concentration: float
) -> list[Array]:
    """One perturbation of every row."""
    drawn = []
    for index, row in enumerate(nominal):
        possible = row > 0
        shape = jnp.where(possible, concentration * row, 1)
        weight = jax.random.loggamma(jax.random.fold_in(key, index), shape)
        weight = jnp.where(possible, weight, -jnp.inf)
        drawn.append(jax.nn.softmax(weight, axis=-1))
    return drawn


@partial(jax.jit, static_argnames=("radius", "concentration"))
def perturbed_models(
    keys: Key[Array, "B K"],
    nominal: Sequence[Float[Array, "B ..."]],
    *,
    radius: float,
    concentration: float,
) -> tuple[list[Array], Float[Array, "B K"]]:
    """Perturbations of every task's nominal model within the radius, and how far.

    Args:
        keys: one for each perturbation.
        nominal: arrays of rows, tasks leading; together they are one model.
        radius: largest divergence, in nats.
        concentration: of the Dirichlet distributions; larger is nearer.

    Returns:
        The arrays with an axis [K] after that of the tasks, and their divergences; NaN
        marks those that were still outside the radius after `MAX_TRIES` draws.

    """

    def one(key: Array, rows: list[Array]) -> tuple[list[Array], Array]:
        def attempt(number: Array) -> tuple[list[Array], Array]:
            drawn = _draw(jax.random.fold_in(key, number), rows, concentration)
            return drawn, divergence(drawn, rows)

        def outside(state: tuple[Array, list[Array], Array]) -> Array:
            number, _, far = state
            return (far > radius) & (number < MAX_TRIES)

        def again(state: tuple[Array, list[Array], Array]) -> tuple[Any, ...]:
            number, _, _ = state
            return number + 1, *attempt(number)

        first = attempt(jnp.int32(0))
        _, drawn, far = jax.lax.while_loop(outside, again, (jnp.int32(1), *first))
        return drawn, jnp.where(far <= radius, far, jnp.nan)

    each_model = jax.vmap(one, in_axes=(0, None))
    return jax.vmap(each_model)(keys, list(nominal))


def check_ambiguity(
    models: int, radius: float, concentration: float, alpha: float
) -> None:
    """Raise `ValueError` for numbers that make no ambiguity set."""
    check_count("K", models, 1)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha:g}: must lie between 0 and 1")
    for name, value in (("radius", radius), ("concentration", concentration)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} = {value:g}: must be positive and finite")
