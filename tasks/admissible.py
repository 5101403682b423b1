"""Masks of admissible actions by state.

A model's `admissible[s, a]` says whether action a can be chosen in state s; None allows
every action. A reward of -inf says the same, and `with_mask` turns it into a mask.

An MDP's agent sees the state and chooses among its admissible actions. A POMDP's agent
does not, so an action is admissible at a belief if it is admissible in every state of
positive probability: a decision can never turn out to be impossible, and the mask tells
the agent nothing that its belief does not. A state needs an admissible action; a POMDP
also needs one at every belief that its policy reaches, and `solve` reports that there
is no such policy.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sdm.tasks.stages import equal_stages

M = TypeVar("M")


def mask_of(model: Any) -> Any:
    """Return the mask [*B, S, A] of a model; None if every action is admissible."""
    return getattr(model, "admissible", None)


def with_mask(model: M) -> M:
    """Return a model whose mask has the rewards of -inf, and these rewards as 0.

    Rewards of other actions that are not admissible are 0, too. A model without such
    rewards or a mask is returned as it is, and so is a model of a class without masks.
    It reads values on the host.
    """
    reward: Any = getattr(model, "reward", None)
    if not hasattr(model, "admissible") or not hasattr(reward, "dtype"):
        return model
    allowed = ~np.isneginf(np.asarray(reward))
    if model.admissible is None and allowed.all():
        return model
    if model.admissible is not None:
        given, allowed = equal_stages(model, np.asarray(model.admissible), allowed)
        if given.shape != allowed.shape or given.dtype != bool:
            return model  # `check_mask` says what is wrong
        allowed = allowed & given
        _, reward = equal_stages(model, allowed, reward)
    finite = jnp.where(allowed, reward, jnp.zeros((), reward.dtype))
    return eqx.tree_at(
        lambda m: (m.reward, m.admissible),
        model,
        (finite, jnp.asarray(allowed)),
        is_leaf=lambda leaf: leaf is None,
    )


def check_mask(model: Any) -> None:
    """Raise `ValueError` unless a mask has one admissible action in every state."""
    mask = mask_of(model)
    if mask is None:
        return
    given = np.asarray(mask)
    if given.dtype != bool:
        raise ValueError(f"admissible has dtype {given.dtype}: must be bool")
    reward = np.asarray(model.reward)
    given, reward = equal_stages(model, given, reward)
    if given.shape != reward.shape:
        raise ValueError(
            f"admissible has shape {given.shape}: must be [*B, S, A] = "
            f"{reward.shape}, as reward"
        )
    none = ~given.any(-1)
    if none.any():
        place = ", ".join(str(i) for i in np.argwhere(none)[0])
        raise ValueError(
            f"admissible[{place}]: no action is admissible in this state "
            f"({int(none.sum())} of {none.size} states are wrong)"
        )


def check_no_mask(model: Any, user: str) -> None:
    """Raise `ValueError` if a model has a mask, which `user` does not support."""
    if mask_of(model) is not None:
        raise ValueError(
            f"admissible: {user} does not support masks of actions, found one"
        )


def masked_rewards(model: Any) -> Float[Array, "*B S A"]:
    """Return the rewards, -inf where an action is not admissible.

    They have an axis of stages if the rewards or the mask have it.
    """
    reward: Float[Array, "*B S A"] = model.reward
    mask = mask_of(model)
    if mask is None:
        return reward
    mask, reward = equal_stages(model, mask, reward)
    return jnp.where(mask, reward, jnp.asarray(-jnp.inf, reward.dtype))


def admissible_at(
    mask: Bool[Array, "*B S A"], belief: Float[Array, "*B N S"]
) -> Bool[Array, "*B N A"]:
    """Return which actions are admissible in every possible state of beliefs."""
    possible = belief > 0
    barred = possible[..., :, :, None] & ~mask[..., None, :, :]
    return ~barred.any(-2)
