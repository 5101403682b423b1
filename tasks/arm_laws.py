"""Laws of one arm's reward, by name: Bernoulli, Gaussian and Gamma.

A law has a mean and, unless the mean determines it, a standard deviation, the `noise`.
To add one, decorate a class with `@register_law`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats
from jaxtyping import Array, Float, Key

# Belief of Thompson sampling in a mean whose law has no conjugate prior on [0, 1].
PRIOR_MEAN, PRIOR_VARIANCE = 0.5, 1.0


@runtime_checkable
class ArmLaw(Protocol):
    """Law of the rewards of an arm.

    Attributes:
        values: all possible rewards; () if rewards are continuous.

    """

    values: tuple[float, ...]

    def check(self, low: float, high: float, noise: float) -> None:
        """Raise `ValueError` unless all means in [low, high] are possible."""

    def draw(
        self, key: Key[Array, "*B"], mean: Float[Array, "*B"], noise: float
    ) -> Float[Array, "*B"]:
        """Draw one reward for each mean."""
        ...

    def log_density(
        self, reward: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the log-density, or log-probability, of rewards."""
        ...

    def grid(self, low: float, high: float, noise: float, levels: int) -> list[float]:
        """Return the values to which rewards with means in [low, high] are rounded."""
        ...

    def below(
        self, value: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the probability of a reward of at most `value`."""
        ...

    def sample_mean(
        self,
        key: Key[Array, "*B"],
        count: Float[Array, "*B K"],
        total: Float[Array, "*B K"],
        noise: float,
    ) -> Float[Array, "*B K"]:
        """Draw means of K arms from the posterior given their rewards.

        Args:
            key: a random key for each episode.
            count: number of rewards of each arm.
            total: their sum.
            noise: standard deviation of a reward.

        """
        ...


_laws: dict[str, ArmLaw] = {}


def register_law(name: str) -> Callable[[type], type]:
    """Return a decorator that registers a law."""

    def add(law: type) -> type:
        _laws[name] = law()
        return law

    return add


def arm_laws() -> Mapping[str, ArmLaw]:
    """Return the registered laws by name."""
    return _laws


def each_key(draw: Callable[..., Any], key: Array, *arrays: Array) -> Array:
    """Apply a function of one key, and of entries of arrays, to a batch of keys."""
    flat = [x.reshape(key.size, *x.shape[key.ndim :]) for x in arrays]
    found: Array = jax.vmap(draw)(key.reshape(-1), *flat)
    return found.reshape(*key.shape, *found.shape[1:])


def _uniform(key: Array, like: Array) -> Array:
    return each_key(lambda k: jax.random.uniform(k, dtype=like.dtype), key)


@register_law("bernoulli")
class Bernoulli:
    """Rewards of 0 and 1; the noise has no effect."""

    values: tuple[float, ...] = (0.0, 1.0)

    def check(self, low: float, high: float, noise: float) -> None:
        """Raise `ValueError` unless means are probabilities."""
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"law = 'bernoulli': means must lie between 0 and 1, found {low:g} to "
                f"{high:g}"
            )

    def draw(
        self, key: Key[Array, "*B"], mean: Float[Array, "*B"], noise: float
    ) -> Float[Array, "*B"]:
        """Draw one reward for each mean."""
        return (_uniform(key, mean) < mean).astype(mean.dtype)

    def log_density(
        self, reward: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the log-probability of rewards."""
        return jnp.log(jnp.where(reward > 0.5, mean, 1 - mean))

    def grid(self, low: float, high: float, noise: float, levels: int) -> list[float]:
        """Return 0 and 1."""
        return list(self.values)

    def below(
        self, value: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the probability of a reward of at most `value`, in [0, 1)."""
        return 1 - mean + 0 * value

    def sample_mean(
        self,
        key: Key[Array, "*B"],
        count: Float[Array, "*B K"],
        total: Float[Array, "*B K"],
        noise: float,
    ) -> Float[Array, "*B K"]:
        """Draw from Beta(1 + successes, 1 + failures)."""
        return each_key(jax.random.beta, key, 1 + total, 1 + count - total)


class _Continuous:
    """A law on real numbers; Thompson sampling takes its variance as known."""

    values: tuple[float, ...] = ()

    def sample_mean(
        self,
        key: Key[Array, "*B"],
        count: Float[Array, "*B K"],
        total: Float[Array, "*B K"],
        noise: float,
    ) -> Float[Array, "*B K"]:
        """Draw from the posterior of the mean of a normal law of known variance."""
        precision = 1 / PRIOR_VARIANCE + count / noise**2
        mean = (PRIOR_MEAN / PRIOR_VARIANCE + total / noise**2) / precision
        shape, kind = count.shape[-1:], count.dtype
        normal = each_key(lambda k: jax.random.normal(k, shape, kind), key)
        return mean + normal / jnp.sqrt(precision)


@register_law("gaussian")
class Gaussian(_Continuous):
    """Normal rewards."""

    def check(self, low: float, high: float, noise: float) -> None:
        """Raise `ValueError` unless the noise is positive."""
        _check_noise("gaussian", noise)

    def draw(
        self, key: Key[Array, "*B"], mean: Float[Array, "*B"], noise: float
    ) -> Float[Array, "*B"]:
        """Draw one reward for each mean."""
        return mean + noise * each_key(
            lambda k: jax.random.normal(k, dtype=mean.dtype), key
        )

    def log_density(
        self, reward: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the log-density of rewards."""
        return stats.norm.logpdf(reward, mean, jnp.asarray(noise, mean.dtype))

    def grid(self, low: float, high: float, noise: float, levels: int) -> list[float]:
        """Return equally spaced values, two deviations beyond the means."""
        return _spaced(low - 2 * noise, high + 2 * noise, levels)

    def below(
        self, value: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the probability of a reward of at most `value`."""
        return stats.norm.cdf(value, mean, jnp.asarray(noise, mean.dtype))


@register_law("gamma")
class Gamma(_Continuous):
    """Gamma rewards of shape (mean / noise)² and scale noise² / mean."""

    def check(self, low: float, high: float, noise: float) -> None:
        """Raise `ValueError` unless means and noise are positive."""
        _check_noise("gamma", noise)
        if low <= 0:
            raise ValueError(f"law = 'gamma': means must be above 0, found {low:g}")

    def draw(
        self, key: Key[Array, "*B"], mean: Float[Array, "*B"], noise: float
    ) -> Float[Array, "*B"]:
        """Draw one reward for each mean."""
        shape = (mean / noise) ** 2
        return noise**2 / mean * each_key(jax.random.gamma, key, shape)

    def log_density(
        self, reward: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the log-density of rewards."""
        tiny = jnp.finfo(mean.dtype).tiny  # of which a sampled reward can fall short
        positive = jnp.maximum(reward, tiny)
        return stats.gamma.logpdf(positive, (mean / noise) ** 2, scale=noise**2 / mean)

    def grid(self, low: float, high: float, noise: float, levels: int) -> list[float]:
        """Return equally spaced values from 0 to three deviations above the means."""
        return _spaced(0.0, high + 3 * noise, levels)

    def below(
        self, value: Float[Array, "*#B"], mean: Float[Array, "*#B"], noise: float
    ) -> Float[Array, "*B"]:
        """Return the probability of a reward of at most `value`."""
        return stats.gamma.cdf(value, (mean / noise) ** 2, scale=noise**2 / mean)


def _check_noise(law: str, noise: float) -> None:
    if not 0 < noise < np.inf:
        raise ValueError(f"noise = {noise:g}: must be above 0 for law = '{law}'")


def _spaced(low: float, high: float, levels: int) -> list[float]:
    """Return values that two decimals can hold, as text schemas write them."""
    return [float(x) for x in np.round(np.linspace(low, high, levels), 2)]


def chances(
    law: ArmLaw,
    mean: Float[Array, "*B"],
    noise: float,
    values: tuple[float, ...],
) -> Float[Array, "*B L"]:
    """Return the probability that a reward is rounded to each of the values."""
    grid = np.asarray(values)
    middle = jnp.asarray((grid[1:] + grid[:-1]) / 2, mean.dtype)
    lead = (1,) * mean.ndim
    low = law.below(middle.reshape(*lead, -1), mean[..., None], noise)
    ends = [jnp.zeros_like(low[..., :1]), low, jnp.ones_like(low[..., :1])]
    return jnp.diff(jnp.concatenate(ends, axis=-1), axis=-1)
