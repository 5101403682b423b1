r"""Exact value of a partially observed task, from all reachable beliefs.

    H_k(b,a) = b·r_a + γ Σ_o Pr_k(o|b,a) V_{t+1}(τ_k(b,a,o))
    V_t(b)   = max_a [ α min_k H_k(b,a) + (1 - α) max_k H_k(b,a) ]

The recursion is evaluated stage by stage over the reachable beliefs, with equal beliefs
merged. It is exact for every α, without discretisation. The number of beliefs can grow
as (A O K)^T, so use it for small tasks and short horizons. It runs on the host in
double precision.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.admissible import admissible_at, mask_of, with_mask
from sdm.tasks.models import APOMDP, POMDP, Model, check_horizon, check_model
from sdm.tasks.stages import at_stage, check_stages, stages_of
from sdm.tasks.transitions import dense

MAX_BELIEFS = 2_000_000
# Beliefs equal to this many decimals are merged: the rounding error of a Bayes update
# is smaller, and the value changes by at most this times horizon times reward.
DECIMALS = 12


class BeliefTreeError(RuntimeError):
    """The number of reachable beliefs exceeds the limit."""

    def __init__(self, beliefs: int, stage: int) -> None:
        """Set the message and the hint."""
        super().__init__(
            f"belief tree: too many reachable beliefs, found {beliefs} by stage {stage}"
        )
        self.hint = "use the point-based method, a shorter horizon or a higher limit"


class Stage(NamedTuple):
    """The beliefs of a stage and their successors.

    Attributes:
        belief: distinct reachable beliefs.
        after: index of each successor among the beliefs of the next stage.
        chance: probability of each symbol.

    """

    belief: Float[np.ndarray, "N S"]
    after: Int[np.ndarray, "N K A O"]
    chance: Float[np.ndarray, "N K A O"]


def merge(
    belief: Float[np.ndarray, "N S"],
) -> tuple[Float[np.ndarray, "M S"], Int[np.ndarray, " N"]]:
    """Return the distinct beliefs, and the index of each given belief among them."""
    rounded = np.round(belief, DECIMALS) + 0.0  # no negative zero
    rows = np.ascontiguousarray(rounded).view([("", rounded.dtype)] * belief.shape[1])
    _, first, inverse = np.unique(rows[:, 0], return_index=True, return_inverse=True)
    return belief[first], inverse


def attitude(model: POMDP | APOMDP) -> float:
    """Return α of an APOMDP, or 0 for a POMDP, whose value does not depend on α."""
    return float(model.alpha) if isinstance(model, APOMDP) else 0.0


def value_at(
    model: POMDP | APOMDP,
    belief: Float[np.ndarray, "N S"],
    *,
    horizon: int,
    max_beliefs: int = MAX_BELIEFS,
) -> Float[np.ndarray, "N A"]:
    """Return the exact value of each first action at beliefs of one task.

    Args:
        model: a single task, without leading axes.
        belief: beliefs at the first of `horizon` stages.
        horizon: number of decisions T.
        max_beliefs: largest number of successors to store, over all stages.

    Raises:
        BeliefTreeError: if the number of successors exceeds `max_beliefs`.
        ValueError: if arrays of the model are for another number of stages.

    """
    check_stages(model, horizon)
    ambiguous, alpha = isinstance(model, APOMDP), attitude(model)
    same = _arrays(model) if stages_of(model) is None else None
    stages, held = [], 0
    now, place = merge(np.asarray(belief, np.float64))
    for t in range(horizon - 1):
        transition, observation, _, _ = same or _arrays(at_stage(model, t))
        shape = (len(now), *observation.shape[:2], observation.shape[3])
        held += int(np.prod(shape))
        if held > max_beliefs:
            raise BeliefTreeError(held, t + 1)
        predicted = np.einsum("ns,ksam->nkam", now, transition)
        reached = np.einsum("nkam,kamo->nkaom", predicted, observation)
        chance = reached.sum(-1)
        # A symbol of probability zero keeps the belief, which has no effect.
        after = np.divide(
            reached,
            chance[..., None],
            out=np.broadcast_to(now[:, None, None, None], reached.shape).copy(),
            where=chance[..., None] > 0,
        )
        following, index = merge(after.reshape(-1, now.shape[1]))
        stages.append(Stage(now, index.reshape(shape), chance))
        now = following
    _, _, reward, mask = same or _arrays(at_stage(model, horizon - 1))
    value = _barred(now, mask) + now @ reward  # at the last stage, under every model
    for t, stage in reversed(list(enumerate(stages))):
        _, _, reward, mask = same or _arrays(at_stage(model, t))
        best = value.max(-1)
        after = np.where(stage.chance > 0, best[stage.after], 0)
        future = (stage.chance * after).sum(-1)  # [N, K, A]
        paid = _barred(stage.belief, mask) + stage.belief @ reward
        each = paid[:, None] + float(model.discount) * future
        value = each[:, 0]
        if ambiguous:
            value = alpha * each.min(1) + (1 - alpha) * each.max(1)
    return value[place]


def _arrays(
    model: POMDP | APOMDP,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Bool[Array, "S A"] | None]:
    """Return transition and observation of K models, rewards and mask of a stage."""
    transition = np.asarray(dense(model.transition), np.float64)
    observation = np.asarray(model.observation, np.float64)
    if not isinstance(model, APOMDP):
        transition, observation = transition[None], observation[None]
    reward = np.asarray(model.reward, np.float64)
    return transition, observation, reward, mask_of(model)


def _barred(
    belief: Float[np.ndarray, "N S"], mask: Bool[Array, "S A"] | None
) -> Float[np.ndarray, "N A"] | float:
    """Return -inf for actions that are not admissible at beliefs, and 0 for others."""
    if mask is None:
        return 0.0
    allowed = np.asarray(admissible_at(mask, jnp.asarray(belief)))
    return np.where(allowed, 0.0, -np.inf)


def belief_tree_value(
    model: Model, *, horizon: int, max_beliefs: int = MAX_BELIEFS
) -> float:
    """Return the exact value of one task from its initial distribution.

    It is -inf if no policy avoids actions that are not admissible.

    Args:
        model: a single POMDP or APOMDP, without leading axes.
        horizon: number of decisions T.
        max_beliefs: largest number of successors to store, over all stages.

    Raises:
        TypeError: if the states of the model are observed.
        ValueError: if the model is invalid or a batch.
        BeliefTreeError: if the number of successors exceeds `max_beliefs`.

    """
    check_horizon(horizon)
    if not isinstance(model, POMDP | APOMDP):
        raise TypeError(
            f"model is of type {type(model).__name__}: must be a POMDP or an APOMDP, "
            "whose states are hidden; use `solve` for other models"
        )
    check_model(model)
    model = with_mask(model)
    if np.ndim(model.initial) != 1:
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must be [S, A], for one task"
        )
    initial = np.asarray(model.initial, np.float64)
    first = model.initial_observation
    if first is None:
        value = value_at(model, initial[None], horizon=horizon, max_beliefs=max_beliefs)
        return float(value.max())
    ambiguous = isinstance(model, APOMDP)
    seen = np.asarray(first, np.float64)
    joint = initial[:, None] * (seen if ambiguous else seen[None])  # [K, S, I]
    mass = joint.sum(1)
    possible = mass > 0
    roots = np.swapaxes(joint, 1, 2)[possible] / mass[possible][:, None]
    best = np.zeros_like(mass)
    best[possible] = value_at(
        model, roots, horizon=horizon, max_beliefs=max_beliefs
    ).max(-1)
    expected = (mass * best).sum(-1)
    if not ambiguous:
        return float(expected[0])
    alpha = attitude(model)
    return float(alpha * expected.min() + (1 - alpha) * expected.max())
