r"""In-context regression in a linear MDP with dynamics, with measured calibration.

Features φ(s, a) are distributions over d hidden modes, and mode k leads to states with
distribution μ_k: the transition law P(s'|s,a) = Σ_k φ_k(s,a) μ_k(s') has rank d. With
rewards ⟨φ, θ⟩ every Q function is linear in φ: Q*(s,a) = ⟨φ(s,a), w⟩ with
w = θ + γ Σ_s' μ(s') max_a ⟨φ(s',a), w⟩. Tasks share φ and μ and differ in θ ~ N(0, I).

A layer is trained to regress Q* in context, by least squares in B over many tasks. The
policy is greedy in Q̂, so it visits other states than the examples cover. By the
performance difference lemma

    J(π*) - J(π̂) = E_{s ~ d^π̂} [V*(s) - Q*(s, π̂(s))] / (1 - γ) ≤ 2 √C ε / (1 - γ),

where d^π̂ is the policy's discounted occupancy and ε² the risk on the distribution of
the examples. C ε² is the mean square of Q̂ - Q* under d^π̂, at the best action or at the
action taken, whichever is larger. Tasks, examples and training prompts are random; all
else is computed exactly from P.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sdm.theory.covariances import Number, check_at_least, check_discount


class LinearMDPs(NamedTuple):
    """Tasks B with common features and transition law.

    Attributes:
        feature: φ; rows are distributions over modes.
        mode: μ; rows are distributions over states.
        theta: θ of each task, the reward weights.
        weight: w of each task.
        discount: γ, below 1.

    """

    feature: Float[np.ndarray, "S A d"]
    mode: Float[np.ndarray, "d S"]
    theta: Float[np.ndarray, "B d"]
    weight: Float[np.ndarray, "B d"]
    discount: Number

    @property
    def q(self) -> Float[np.ndarray, "B S A"]:
        """Q* of each task."""
        return np.einsum("sad,bd->bsa", self.feature, self.weight)


@dataclass(frozen=True)
class Played:
    """Results of a greedy policy, averaged over tasks.

    Attributes:
        gap: J(π*) - J(π̂) from a uniformly random initial state.
        risk: ε² over uniformly random states and actions, as in the examples.
        calibration: C.
        bound: 2 √C ε / (1 - γ).
        bound_uncalibrated: 2 ε / (1 - γ).

    """

    gap: float
    risk: float
    calibration: float
    bound: float
    bound_uncalibrated: float


def sample_linear_mdps(
    random: np.random.Generator,
    *,
    tasks: int,
    states: int = 50,
    actions: int = 5,
    dim: int = 5,
    discount: Number = 0.9,
    like: LinearMDPs | None = None,
) -> LinearMDPs:
    """Draw tasks and compute their w.

    Args:
        random: generator of random numbers.
        tasks: number of tasks B.
        states: S.
        actions: A.
        dim: d.
        discount: γ.
        like: take φ, μ and γ from these tasks, and draw new rewards only.

    Raises:
        ValueError: if a count is below 1, or γ is outside (0, 1).

    """
    for name, count in (
        ("number of tasks", tasks),
        ("number of states", states),
        ("A", actions),
        ("d", dim),
    ):
        check_at_least(name, count, 1)
    check_discount(discount)
    if discount == 1:
        raise ValueError("γ: must be below 1 for an infinite horizon, found 1")
    if like is None:
        # Dirichlet(1/2) puts most features near a corner, so that actions differ.
        feature = random.dirichlet(np.full(dim, 0.5), (states, actions))
        mode = random.dirichlet(np.full(states, 0.1), dim)
    else:
        feature, mode, discount = like.feature, like.mode, like.discount
    theta = random.normal(size=(tasks, feature.shape[-1]))
    weight, every = theta, feature.reshape(-1, feature.shape[-1])
    shape = (len(theta), *feature.shape[:2])
    # Value iteration stops where γ^n is below rounding.
    for _ in range(int(np.ceil(np.log(1e-16) / np.log(discount)))):
        best = (weight @ every.T).reshape(shape).max(-1)
        weight = theta + discount * best @ mode.T
    return LinearMDPs(feature, mode, theta, weight, discount)


def contexts(
    random: np.random.Generator, tasks: LinearMDPs, examples: int
) -> tuple[Float[np.ndarray, "B d"], Int[np.ndarray, "B 2"]]:
    """Return h of uniformly random examples, and a random query (state, action)."""
    states, actions, dim = tasks.feature.shape
    count = len(tasks.weight)
    chosen = random.integers(states * actions, size=(count, examples))
    x = tasks.feature.reshape(-1, dim)[chosen]
    y = np.einsum("bmd,bd->bm", x, tasks.weight)
    asked = random.integers((states, actions), size=(count, 2))
    return np.einsum("bm,bmd->bd", y, x) / examples, asked


def train_estimator(
    random: np.random.Generator, tasks: LinearMDPs, examples: int
) -> Float[np.ndarray, "d d"]:
    """Fit B of Q* ≈ φᵀ B h by least squares, on one prompt per task."""
    h, asked = contexts(random, tasks, examples)
    phi = tasks.feature[asked[:, 0], asked[:, 1]]
    label = np.einsum("bd,bd->b", phi, tasks.weight)
    products = np.einsum("bi,bj->bij", phi, h).reshape(len(h), -1)
    flat, *_ = np.linalg.lstsq(products, label, rcond=None)
    return flat.reshape(phi.shape[-1], -1)


def play(
    random: np.random.Generator,
    tasks: LinearMDPs,
    estimator: Float[np.ndarray, "d d"],
    support: int,
) -> Played:
    """Evaluate the greedy policy of Q̂ from `support` examples in each task."""
    h, _ = contexts(random, tasks, support)
    truth, guess = tasks.q, np.einsum("sad,bd->bsa", tasks.feature, h @ estimator.T)
    error = guess - truth
    best, taken = truth.argmax(-1), guess.argmax(-1)
    states = truth.shape[1]
    every = np.arange(states)
    moves = tasks.feature[every, taken] @ tasks.mode  # [B, S, S]
    start = np.full(states, 1 / states)
    share = 1 - tasks.discount
    system = np.eye(states) - tasks.discount * np.swapaxes(moves, -1, -2)
    right = np.broadcast_to(share * start[:, None], (len(truth), states, 1))
    occupancy = np.linalg.solve(system, right)[..., 0]  # [B, S]

    def at(values: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, action[..., None], axis=-1)[..., 0]

    lost = truth.max(-1) - at(truth, taken)
    gap = float((occupancy * lost).sum(-1).mean()) / share
    risk = float((error**2).mean())
    chosen = max(
        float((occupancy * at(error, action) ** 2).sum(-1).mean())
        for action in (best, taken)
    )
    return Played(
        gap=gap,
        risk=risk,
        calibration=chosen / risk,
        bound=2 * float(np.sqrt(chosen)) / share,
        bound_uncalibrated=2 * float(np.sqrt(risk)) / share,
    )
