r"""Ambiguity sets: models near a nominal one in Kullback-Leibler divergence.

Rejection sampling draws every row of a perturbed model from
Dirichlet(concentration × row), which keeps the support, until its divergence to the
nominal model,

    mean over rows of  Σ_x P_k(x) log( P_k(x) / P_1(x) ),

is at most the radius (Zhang, Aghaei, Saghafian, 2026). The radius 0.05 and the
concentration 50 are our choices.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sdm.tasks.models import APOMDP, POMDP, check_count
from sdm.tasks.transitions import dense

MAX_TRIES = 1000


@runtime_checkable
class Ambiguous(Protocol):
    """A configuration of ambiguity sets.

    Attributes:
        models: number K of models; the first is the nominal one.
        alpha: weight of the worst model, in [0, 1].
        radius: largest divergence to the nominal model, in nats.
        concentration: concentration of the Dirichlet distributions that perturb rows.

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
    """No perturbed model lies within the radius."""

    def __init__(self, radius: float, concentration: float) -> None:
        """Set the message and the hint."""
        super().__init__(
            f"radius = {radius:g} cannot be met: none of {MAX_TRIES} models sampled "
            f"with concentration {concentration:g} lies within it"
        )
        self.hint: str = (
            f"increase the radius, or the concentration above {concentration:g}, to "
            "sample nearer models"
        )


def divergence(
    perturbed: Sequence[Float[Array, "..."]], nominal: Sequence[Float[Array, "..."]]
) -> Float[Array, ""]:
    """Return the mean over all rows of KL(perturbed row || nominal row), in nats."""
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

    return jax.vmap(of_task)(dense(model.transition), model.observation)


def nearby_pomdps(
    nominal: POMDP, keys: Key[Array, " B"], family: "Ambiguous"
) -> APOMDP:
    """Return ambiguity sets of the nominal models and perturbations of their rows.

    Args:
        nominal: a batch of B tasks; the first model of each set.
        keys: one random key per task.
        family: configuration of the sets.

    Raises:
        AmbiguityError: if the radius cannot be met; not raised while JAX traces.

    """
    others = jax.vmap(lambda key: jax.random.split(key, family.models - 1))(keys)
    parts = [dense(nominal.transition), nominal.observation]
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
    """Raise `AmbiguityError` if no draw met the radius; do nothing under tracing."""
    traced = isinstance(divergence, jax.core.Tracer)
    if not traced and np.isnan(divergence).any():
        raise AmbiguityError(radius, concentration)


def _draw(
    key: Key[Array, ""], nominal: Sequence[Array], concentration: float
) -> list[Array]:
    """Sample one perturbation of every row."""
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
    """Sample perturbations of every nominal model within the radius.

    Args:
        keys: one random key per perturbation.
        nominal: arrays of rows with tasks on axis 0; together they form one model.
        radius: largest divergence, in nats.
        concentration: concentration of the Dirichlet distributions; larger values
            sample nearer models.

    Returns:
        The arrays with an axis [K] after that of the tasks, and their divergences in
        nats; NaN marks models outside the radius after `MAX_TRIES` draws.

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

        # Not a first attempt: a draw takes seconds to compile, and once is enough.
        none = (
            jnp.int32(0),
            [jnp.zeros_like(row) for row in rows],
            jnp.asarray(jnp.inf),
        )
        _, drawn, far = jax.lax.while_loop(outside, again, none)
        return drawn, jnp.where(far <= radius, far, jnp.nan)

    each_model = jax.vmap(one, in_axes=(0, None))
    return jax.vmap(each_model)(keys, list(nominal))


def check_ambiguity(
    models: int, radius: float, concentration: float, alpha: float
) -> None:
    """Raise `ValueError` for numbers that define no ambiguity set."""
    check_count("K", models, 1)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha:g}: must lie between 0 and 1")
    for name, value in (("radius", radius), ("concentration", concentration)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} = {value:g}: must be positive and finite")
