"""Simulate the training of `regret_training`, and measure limit and regret.

After each iteration: how near the direction of V is to that of the identity, the step η
of follow the regularised leader that the layer corresponds to, and its prediction. At
the start and at the end: the regret of each round, over longer horizons than that of
training, in random scenarios and against alternating rewards.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sdm.theory.precision import in_double_precision
from sdm.theory.regret_training import (
    Layer,
    Setting,
    act,
    alternating,
    attend,
    iterate,
    predicted_step,
    regret,
    regret_bound,
    sample_rewards,
)

SCALE = 0.01  # standard deviation of the initial parameters


class Progress(NamedTuple):
    """The layer after some iterations.

    Attributes:
        iteration: number of iterations n.
        alignment: cosine of the angle between V and the identity; in the simplex, of
            their parts that softmax does not ignore.
        step: step η, the coefficient of the identity in V.
        predicted_step: η_0 + n a; it holds until the ball's boundary binds, or the
            policy is far from uniform.
        offset: norm of v.
        key: norm of k.

    """

    iteration: int
    alignment: float
    step: float
    predicted_step: float
    offset: float
    key: float


class Tested(NamedTuple):
    """Regret of a layer in fresh scenarios, and against alternating rewards.

    Attributes:
        random: regret of each round in each random scenario.
        alternating: regret of each round against alternating rewards.
        bound: mean bound for follow the regularised leader with the layer's step over
            the random scenarios; infinite if the step is not positive.
        bound_alternating: the same against alternating rewards.

    """

    random: Float[np.ndarray, "N T"]
    alternating: Float[np.ndarray, "1 T"]
    bound: float
    bound_alternating: float


class Study(NamedTuple):
    """A simulated training.

    Attributes:
        progress: the layer after each iteration, from the initial one on.
        layers: initial and final layer.
        start: regret of the initial layer.
        end: regret of the final layer.

    """

    progress: list[Progress]
    layers: tuple[Layer, Layer]
    start: Tested
    end: Tested


def essential(
    setting: Setting, value: Float[np.ndarray, "d d"]
) -> Float[np.ndarray, "d d"]:
    """Return the part of V that decides the policy: of zero column sums in the simplex.

    Softmax ignores what all logits have in common.
    """
    return value - value.mean(0) if setting.space == "simplex" else value


def step_of(setting: Setting, layer: Layer) -> tuple[float, float]:
    """Return the step η of a layer, and its alignment with the identity."""
    value = essential(setting, np.asarray(layer.value))
    unit = essential(setting, np.eye(setting.dim))
    along, size = float((value * unit).sum()), float((unit**2).sum())
    norm = float(np.linalg.norm(value))
    return along / size, along / np.sqrt(size) / norm if norm else 0.0


def progress_of(setting: Setting, layer: Layer, n: int, start: float) -> Progress:
    """Return the state of a layer after n iterations from a step `start`."""
    step, alignment = step_of(setting, layer)
    predicted = start + n * predicted_step(setting)
    norms = (float(np.linalg.norm(np.asarray(x))) for x in (layer.offset, layer.key))
    return Progress(n, alignment, step, predicted, *norms)


@in_double_precision
def play(
    setting: Setting, layer: Layer, rewards: Float[np.ndarray, "N T d"]
) -> Float[np.ndarray, "N T"]:
    """Return the regret of each round of a layer that does not explore."""
    policy = act(setting, attend(layer, jnp.asarray(rewards)))
    return regret(setting, np.asarray(policy), rewards)


def tested(
    setting: Setting, layer: Layer, *, horizon: int, scenarios: int, seed: int
) -> Tested:
    """Return the regret of a layer."""
    generator = np.random.default_rng(seed)
    rewards = sample_rewards(generator, setting, scenarios, horizon)
    against, (step, _) = alternating(setting, horizon), step_of(setting, layer)
    bounds = [
        float(regret_bound(setting, step, x).mean()) if step > 0 else float("inf")
        for x in (rewards, against)
    ]
    return Tested(play(setting, layer, rewards), play(setting, layer, against), *bounds)


def study(
    setting: Setting,
    *,
    iterations: int = 30,
    horizon: int = 100,
    tests: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> Study:
    """Simulate a training from small random parameters.

    Args:
        setting: rewards, policy space and sizes.
        iterations: iterations of play, selection and fit.
        horizon: rounds of the test.
        tests: random scenarios of the test.
        seed: seed of parameters, rewards and exploration.
        progress: called with completed and all iterations.

    """
    generator = np.random.default_rng(seed)
    size = setting.dim
    drawn = [SCALE * generator.normal(size=x) for x in ((size, size), size, size)]
    first = layer = Layer(*drawn)
    start, _ = step_of(setting, first)
    found = [progress_of(setting, layer, 0, start)]
    for n in range(1, iterations + 1):
        progress(n - 1, iterations)
        layer = iterate(generator, setting, layer)
        found.append(progress_of(setting, layer, n, start))
    progress(iterations, iterations)
    ends = (
        tested(setting, x, horizon=horizon, scenarios=tests, seed=seed + 1)
        for x in (first, layer)
    )
    return Study(found, (first, layer), *ends)
