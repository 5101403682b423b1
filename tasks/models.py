"""Decision models, and checks of their arrays.

Axis names in the whole package:

    *B  leading batch axes (tasks, devices), possibly none
    N   episodes of one task            T  decisions (the horizon)
    S   states       A  actions         O  observations
    K   models in an ambiguity set

Horizon convention: T decisions at stages t = 0, ..., T-1 and T+1 values; stage 0 comes
first and the value after the last decision is zero. The same code runs a single task, a
batch and a grid of devices. Arrays keep their floating-point type.
"""

from collections.abc import Callable
from numbers import Real

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from sdm.storage.checks import check_count as check_count
from sdm.storage.checks import check_horizon as check_horizon
from sdm.tasks.admissible import check_mask, with_mask
from sdm.tasks.host_checks import check_arrays

Scalar = float | Float[Array, ""]  # a Python number, or its tracer under `jit`

# Rows with six printed digits, or summed in float32, differ from 1 by about this much.
ROW_SUM_TOLERANCE = 1e-5

# The fields that are arrays, in the order of their checks.
ARRAYS = (
    "reward",
    "transition",
    "initial",
    "observation",
    "initial_observation",
    "admissible",
)


class MDP(eqx.Module):
    """Markov decision processes, batched on their leading axes.

    Attributes:
        transition: P(s' | s, a), the next state last.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.
        admissible: which actions can be chosen in each state; None for all. See
            `tasks.admissible`.

    """

    transition: Float[Array, "*B S A S"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar
    admissible: Bool[Array, "*B S A"] | None = None


class RobustMDP(eqx.Module):
    """Fully observed tasks whose transition law is one of K candidates.

    Attributes:
        transition: P_k(s' | s, a) of each model.
        reward: expected reward r(s, a), the same under every model.
        initial: distribution of the first state.
        alpha: weight of the worst model, in [0, 1].
        discount: factor per stage, in [0, 1], common to the batch.
        admissible: which actions can be chosen in each state; None for all. See
            `tasks.admissible`.

    """

    transition: Float[Array, "*B K S A S"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    alpha: Scalar
    discount: Scalar
    admissible: Bool[Array, "*B S A"] | None = None


class POMDP(eqx.Module):
    """Partially observed MDPs; the policy acts on the belief over states.

    Attributes:
        transition: P(s' | s, a), the next state last.
        observation: Z(o | s', a), observed after reaching s' by action a.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.
        initial_observation: Z_1(o | s) of the first state, or None if there is no
            observation before the first action.
        admissible: which actions can be chosen in each state; None for all. See
            `tasks.admissible`.

    """

    transition: Float[Array, "*B S A S"]
    observation: Float[Array, "*B A S O"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar
    initial_observation: Float[Array, "*B S O"] | None = None
    admissible: Bool[Array, "*B S A"] | None = None


class APOMDP(eqx.Module):
    """Ambiguous POMDPs: K candidate models and an attitude to the ambiguity.

    Attributes:
        transition: P_k(s' | s, a) of each model.
        observation: Z_k(o | s', a) of each model.
        reward: expected reward r(s, a), the same under every model.
        initial: distribution of the first state.
        alpha: weight of the worst model, in [0, 1]; 1 is pessimistic, 0 optimistic.
        discount: factor per stage, in [0, 1], common to the batch.
        initial_observation: Z_1k(o | s) of each model, or None.

    """

    transition: Float[Array, "*B K S A S"]
    observation: Float[Array, "*B K A S O"]
    reward: Float[Array, "*B S A"]
    initial: Float[Array, "*B S"]
    alpha: Scalar
    discount: Scalar
    initial_observation: Float[Array, "*B K S O"] | None = None


Model = MDP | RobustMDP | POMDP | APOMDP


def batch_shape(model: Model) -> tuple[int, ...]:
    """Return the sizes of the leading axes *B of a model; () for a single task."""
    return tuple(model.reward.shape[:-2])


def check_model(model: Model) -> None:
    """Check a model's shapes, distributions, rewards, discount and alpha.

    It reads values on the host: call it when a model enters the package, and never
    under `jit`. A reward of -inf is valid where masks are: see `tasks.admissible`.

    Raises:
        TypeError: if a field is not an array, such as a list.
        ValueError: naming the field, the index and the invalid number.

    """
    check_arrays(model, ARRAYS)
    model = with_mask(model)
    check_mask(model)
    if np.ndim(model.reward) < 2:
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must be [*B, S, A]"
        )
    *batch, states, actions = np.shape(model.reward)
    if 0 in (*batch, states, actions):
        raise ValueError(
            f"reward has shape {np.shape(model.reward)}: must have a task, a state and "
            "an action"
        )
    wanted = np.asarray(model.reward).dtype
    for name in ("reward", "transition", "initial", "observation"):
        kind = np.asarray(getattr(model, name, model.reward)).dtype
        if kind.kind != "f":
            raise ValueError(f"{name} has dtype {kind}: must be floating-point")
        if kind != wanted:
            raise ValueError(f"{name} has dtype {kind}: must be {wanted}, as reward")
    _check_shape("initial", model.initial, (*batch, states), "[*B, S]")
    models: list[int] = []
    if isinstance(model, APOMDP | RobustMDP):
        if np.ndim(model.transition) != len(batch) + 4:
            raise ValueError(
                f"transition has shape {np.shape(model.transition)}: must be "
                "[*B, K, S, A, S]"
            )
        models = [np.shape(model.transition)[len(batch)]]
        _check_unit_interval("alpha", model.alpha)
    lead = (*batch, *models)
    _check_shape(
        "transition",
        model.transition,
        (*lead, states, actions, states),
        f"[*B, {'K, ' if models else ''}S, A, S]",
    )
    _check_unit_interval("discount", model.discount)
    _check_finite("reward", model.reward)
    rewards = np.asarray(model.reward)
    most = float(np.sqrt(np.finfo(rewards.dtype).max))  # so that squares are finite
    if np.abs(rewards).max() > most:
        _raise_first(
            "reward",
            np.abs(rewards) > most,
            lambda i: f" = {rewards[i]:g}: must be at most {most:.3g} in magnitude",
            "entries",
        )
    check_rows("transition", model.transition)
    check_rows("initial", model.initial)
    if not isinstance(model, MDP | RobustMDP):
        _check_observation(model, (*lead, actions, states), (*lead, states))


def _check_observation(
    model: POMDP | APOMDP, lead: tuple[int, ...], initial_lead: tuple[int, ...]
) -> None:
    k = "K, " if isinstance(model, APOMDP) else ""
    symbols = np.shape(model.observation)[-1:] or (0,)
    _check_shape(
        "observation", model.observation, (*lead, *symbols), f"[*B, {k}A, S, O]"
    )
    check_rows("observation", model.observation)
    if model.initial_observation is not None:
        _check_shape(
            "initial_observation",
            model.initial_observation,
            (*initial_lead, *symbols),
            f"[*B, {k}S, O]",
        )
        check_rows("initial_observation", model.initial_observation)


def _check_shape(name: str, value: Array, expected: tuple[int, ...], axes: str) -> None:
    if np.shape(value) != expected:
        raise ValueError(
            f"{name} has shape {np.shape(value)}: must be {axes} = {expected}, "
            "to agree with the shape of reward"
        )


def _check_unit_interval(name: str, value: Scalar) -> None:
    if np.ndim(value) or not isinstance(value, Real | np.ndarray | jax.Array):
        raise ValueError(f"{name} = {value!r}: must be one number from 0 to 1")
    if not 0 <= float(value) <= 1:
        raise ValueError(f"{name} = {float(value):g}: must lie between 0 and 1")


def _raise_first(
    name: str, bad: np.ndarray, describe: Callable[[tuple[int, ...]], str], things: str
) -> None:
    """Raise `ValueError` for the first true entry of `bad`, with their number."""
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(
            f"{name}{where}{describe(index)} ({int(bad.sum())} of {bad.size} "
            f"{things} are wrong)"
        )


def _check_finite(name: str, value: object) -> None:
    array = np.asarray(value)
    if not np.isfinite(array).all():
        _raise_first(
            name,
            ~np.isfinite(array),
            lambda i: f" = {array[i]}: must be finite",
            "entries",
        )


def check_rows(name: str, value: object) -> None:
    """Raise `ValueError` unless every last-axis row is a probability distribution."""
    array = np.asarray(value)
    _check_finite(name, array)
    if array.size and array.min() < 0:
        _raise_first(
            name,
            array < 0,
            lambda i: f" = {array[i]:g}: probabilities cannot be negative",
            "entries",
        )
    # A product with ones is several times faster than `sum` over a short last axis.
    sums = np.asarray(array @ np.ones(array.shape[-1], array.dtype))
    if not (np.abs(sums - 1) <= ROW_SUM_TOLERANCE).all():
        _raise_first(
            name,
            np.asarray(np.abs(sums - 1) > ROW_SUM_TOLERANCE),
            lambda i: f": probabilities sum to {sums[i]:.6g}, not 1",
            "rows",
        )


def states_observed(model: MDP | POMDP) -> MDP:
    """Return the same tasks with their states fully observed."""
    return MDP(
        model.transition, model.reward, model.initial, model.discount, model.admissible
    )
