r"""Iterative regret-minimising fine-tuning of a single-layer linear self-attention.

The training is that of Park, Chen, Ozdaglar and Zhang (2025), in a setting simple
enough to predict; the analysis below is ours.

**Setting.** Online linear optimisation with full information: in round t the policy
plays π_t, then sees the reward vector r_t, and earns ⟨π_t, r_t⟩. In training,
r_t = μ + σ z_t with μ ~ N(0, τ² I) and z_t ~ N(0, I). The layer reads the past rewards,
with a constant query,

    f_t = Σ_{i<t} (V r_i + v)(kᵀ r_i + 1).

Policy space *ball*: the mean action is the projection of f_t on the ball of radius R,
and an episode plays that of f_t + s ε_t, ε_t ~ N(0, I). Policy space *simplex*: the
policy is softmax(f_t), and an episode plays a vertex drawn from it.

**Training.** In each iteration, the layer plays L episodes in each of N scenarios, the
k of lowest regret are kept, and the layer is fitted to them: by least squares in the
ball, by maximum likelihood in the simplex. The comparator max_π Σ⟨π, r_t⟩ is the same
for all episodes of a scenario, so selection by regret is selection by reward.

**What one iteration does (ball, R = ∞).** The episode's score is Σ⟨ε_t, r_t⟩, normal
with deviation ‖r‖_F, and E[ε_t | score] = score r_t / ‖r‖_F². With m the mean of the
largest k of L standard normal numbers, E[ε_t | kept] = m r_t / ‖r‖_F. The current r_t
is not in the layer's input, so the fit learns its prediction from the past. By
symmetry, v = k = 0 is stationary, and least squares give

    V ← V + a I,    a = s m E[Σ_t ⟨r_t, S_{t-1}⟩ / ‖r‖_F] / Σ_t E‖S_{t-1}‖²,

with S_t = Σ_{i≤t} r_i, whatever V was. After n iterations V_n = V_0 + n a I: its
direction converges to that of the identity like 1/n, and from V_0 = 0 the layer is
*follow the regularised leader* with regulariser ‖π‖² / (2 n a). In the simplex, near
the uniform policy and for large T, where the score is nearly normal, the same holds for
the parts of V and r_t that softmax does not ignore, with d - 1 in place of d and
s = √d: the layer becomes exponential weights with a growing step.

**Regret.** For every sequence of rewards, follow the regularised leader with step η has
a regret of at most

    R²/(2η) + (η/2) Σ ‖r_t‖²           (ball),
    log(d)/η + (η/2) Σ ‖r_t‖²_∞        (simplex),

of order √T for η of order 1/√T. As n grows without end it becomes follow the leader,
which has no such bound: rewards that alternate give it linear regret.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import integrate, optimize, stats

from sdm.theory.precision import in_double_precision

SPACES = ("ball", "simplex")
STOPPED = 1e-10  # largest gradient entry at which a fit ends


@dataclass(frozen=True)
class Setting:
    """Rewards, policy space and sizes of the training.

    Attributes:
        space: policy space, `ball` or `simplex`.
        dim: dimension d of a reward.
        horizon: rounds T of a training scenario.
        spread: standard deviation τ of the mean reward.
        noise: standard deviation σ of a reward around it.
        radius: radius R of the ball; infinite for no projection.
        explore: standard deviation s of the exploration in the ball.
        scenarios: scenarios N per iteration.
        episodes: episodes L in each scenario.
        kept: episodes k of lowest regret that are kept.

    """

    space: str = "ball"
    dim: int = 3
    horizon: int = 20
    spread: float = 0.5
    noise: float = 1.0
    radius: float = 1.0
    explore: float = 0.3
    scenarios: int = 1000
    episodes: int = 10
    kept: int = 2

    def __post_init__(self) -> None:
        """Raise `ValueError` for an entry that is out of range."""
        if self.space not in SPACES:
            raise ValueError(
                f"space = {self.space!r}: must be one of {', '.join(SPACES)}"
            )
        for name in ("dim", "horizon"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} = {getattr(self, name)}: must be 2 or more")
        for name in ("noise", "radius", "explore", "scenarios"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name):g}: must be above 0")
        if not self.spread >= 0:
            raise ValueError(f"spread = {self.spread:g}: must be 0 or more")
        if not 1 <= self.kept < self.episodes:
            raise ValueError(
                f"kept = {self.kept}: must be 1 or more, and fewer than the "
                f"{self.episodes} episodes, or nothing is selected"
            )


class Layer(NamedTuple):
    """Parameters of the layer.

    Attributes:
        value: matrix V.
        offset: vector v.
        key: vector k.

    """

    value: Float[Array, "d d"] | Float[np.ndarray, "d d"]
    offset: Float[Array, " d"] | Float[np.ndarray, " d"]
    key: Float[Array, " d"] | Float[np.ndarray, " d"]

    def flat(self) -> np.ndarray:
        """Return all parameters as one vector."""
        return np.concatenate([np.ravel(x) for x in self])


def layer_of(flat: Array | np.ndarray, dim: int) -> Layer:
    """Return the layer with these parameters, as `Layer.flat` orders them."""
    value, offset, key = flat[: dim**2], flat[dim**2 : -dim], flat[-dim:]
    return Layer(value.reshape(dim, dim), offset, key)


def sample_rewards(
    generator: np.random.Generator, setting: Setting, scenarios: int, horizon: int
) -> Float[np.ndarray, "N T d"]:
    """Sample the rewards of scenarios with a random mean each."""
    mean = setting.spread * generator.normal(size=(scenarios, 1, setting.dim))
    shape = (scenarios, horizon, setting.dim)
    return mean + setting.noise * generator.normal(size=shape)


def attend(layer: Layer, rewards: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
    """Return the layer's output f_t before each round."""
    value, offset, key = layer
    weight = rewards @ key + 1  # [N, T]
    each = (rewards @ value.T + offset[None, None]) * weight[..., None]
    return jnp.cumsum(each, axis=1) - each


def act(setting: Setting, output: Float[Array, "N T d"]) -> Float[Array, "N T d"]:
    """Return the policy: the projection on the ball, or softmax."""
    if setting.space == "simplex":
        return jax.nn.softmax(output, axis=-1)
    if np.isinf(setting.radius):
        return output
    square = (output**2).sum(-1, keepdims=True)
    outside = square > setting.radius**2
    length = jnp.sqrt(jnp.where(outside, square, 1))
    return jnp.where(outside, output * setting.radius / length, output)


def regret(
    setting: Setting,
    policy: Float[np.ndarray, "N T d"],
    rewards: Float[np.ndarray, "N T d"],
) -> Float[np.ndarray, "N T"]:
    """Return the regret of each round: the increments of the hindsight regret.

    Raises:
        ValueError: if the ball is unbounded.

    """
    total = np.cumsum(rewards, 1)
    if setting.space == "simplex":
        best = total.max(-1)
    elif np.isinf(setting.radius):
        raise ValueError("radius = inf: the regret needs a bounded ball")
    else:
        best = setting.radius * np.linalg.norm(total, axis=-1)
    earned = (np.asarray(policy) * rewards).sum(-1)
    return np.diff(best, axis=-1, prepend=0.0) - earned


@in_double_precision
def iterate(generator: np.random.Generator, setting: Setting, layer: Layer) -> Layer:
    """Play, select and fit; raise `RuntimeError` if the fit fails."""
    rewards = sample_rewards(generator, setting, setting.scenarios, setting.horizon)
    wanted = selected(generator, setting, layer, rewards)
    start = Layer(*map(np.asarray, layer)).flat()
    found = optimize.minimize(
        lambda x: tuple(map(np.asarray, _loss(x, setting, rewards, wanted))),
        start,
        jac=True,
        method="BFGS",
        options={"gtol": STOPPED, "maxiter": 500},
    )
    # Rounding ends the line search a little before the gradient vanishes.
    if not np.abs(found.jac).max() < 1e-5:
        raise RuntimeError(f"fit of the layer: no convergence, {found.message}")
    return layer_of(found.x, setting.dim)


def selected(
    generator: np.random.Generator,
    setting: Setting,
    layer: Layer,
    rewards: Float[np.ndarray, "N T d"],
) -> Float[np.ndarray, "N T d"]:
    """Return the mean action, in each round, of the kept episodes of each scenario."""
    output = np.asarray(attend(layer, jnp.asarray(rewards)))[:, None]
    shape = (len(rewards), setting.episodes, *rewards.shape[1:])
    if setting.space == "ball":
        noisy = output + setting.explore * generator.normal(size=shape)
        flat = jnp.asarray(noisy.reshape(-1, *shape[2:]))
        played = np.asarray(act(setting, flat)).reshape(shape)
    else:
        gumbel = generator.gumbel(size=shape)
        played = np.eye(setting.dim)[(output + gumbel).argmax(-1)]
    earned = (played * rewards[:, None]).sum((-2, -1))
    best = np.argsort(-earned, axis=1, kind="stable")[:, : setting.kept]
    kept: np.ndarray = np.take_along_axis(played, best[..., None, None], 1).mean(1)
    return kept


@jax.jit(static_argnums=1)
def _loss(
    flat: Array, setting: Setting, rewards: Array, wanted: Array
) -> tuple[Array, Array]:
    """Return the loss of the fit and its gradient."""

    def of(x: Array) -> Array:
        output = attend(layer_of(x, setting.dim), rewards)
        if setting.space == "simplex":
            return -(wanted * jax.nn.log_softmax(output, axis=-1)).sum(-1).mean()
        return 0.5 * ((act(setting, output) - wanted) ** 2).sum(-1).mean()

    return jax.value_and_grad(of)(flat)


def selection_gain(episodes: int, kept: int) -> float:
    """Return m, the mean of the largest `kept` of `episodes` normal numbers."""

    def integrand(x: float) -> float:
        above = stats.binom.cdf(kept - 1, episodes - 1, stats.norm.sf(x))
        return float(x * episodes * stats.norm.pdf(x) * above / kept)

    return float(integrate.quad(integrand, -10, 10, limit=200)[0])


def predicted_step(setting: Setting) -> float:
    """Return a, by which an iteration raises V.

    It holds in the unbounded ball, and in the simplex near the uniform policy.

    A = ‖S_T‖²/T and the squared deviations Q from the mean are independent, scaled χ²
    numbers with Σ⟨r_t, S_{t-1}⟩ = ((T - 1) A - Q)/2 and ‖r‖²_F = A + Q. The expectation
    follows from x^(-1/2) = ∫ exp(-x u²) du 2/√π.
    """
    d, rounds, explore = setting.dim, setting.horizon, setting.explore
    if setting.space == "simplex":
        d, explore = d - 1, np.sqrt(d)
    wide = setting.noise**2 + rounds * setting.spread**2
    narrow, other = setting.noise**2, (rounds - 1) * d

    def integrand(u: float) -> float:
        a, q = 1 + 2 * wide * u**2, 1 + 2 * narrow * u**2
        both = a ** (-d / 2) * q ** (-other / 2)
        return float(both * ((rounds - 1) * wide * d / a - narrow * other / q))

    numerator = integrate.quad(integrand, 0, np.inf, limit=200)[0] / np.sqrt(np.pi)
    past = np.arange(rounds)
    denominator = d * (past * (setting.noise**2 + past * setting.spread**2)).sum()
    gain = selection_gain(setting.episodes, setting.kept)
    return float(explore * gain * numerator / denominator)


def regret_bound(
    setting: Setting, step: float, rewards: Float[np.ndarray, "N T d"]
) -> Float[np.ndarray, " N"]:
    """Return the bound on the regret of follow the regularised leader with a step η."""
    if setting.space == "ball":
        size = (rewards**2).sum((-2, -1))
        return np.asarray(setting.radius**2 / (2 * step) + step / 2 * size)
    size = (np.abs(rewards).max(-1) ** 2).sum(-1)
    return np.asarray(np.log(setting.dim) / step + step / 2 * size)


def alternating(setting: Setting, horizon: int) -> Float[np.ndarray, "1 T d"]:
    """Return rewards 1/2, -1, 1, … in one coordinate: follow the leader always errs."""
    rewards = np.zeros((1, horizon, setting.dim))
    rewards[0, :, 0] = (-1.0) ** np.arange(horizon)
    rewards[0, 0, 0] = 0.5
    return rewards
