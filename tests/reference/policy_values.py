"""Exact return of a policy over beliefs, from every history that it can meet."""

import jax.numpy as jnp
import numpy as np


def policy_values(model, solution, horizon):
    """Exact expected return of acting by `solution` in each task of a batch [B]."""
    p, z = np.asarray(model.transition), np.asarray(model.observation)
    reward, first = np.asarray(model.reward), model.initial_observation
    task = np.arange(len(reward))[:, None]
    initial = np.asarray(model.initial)
    seen = np.ones((*initial.shape, 1)) if first is None else np.asarray(first)
    joint = np.swapaxes(initial[:, :, None] * seen, 1, 2)  # [B, N, S], unnormalised
    total = np.zeros(len(reward))
    for t in range(horizon):
        chance = joint.sum(-1, keepdims=True)
        belief = np.where(chance > 0, joint / np.where(chance > 0, chance, 1), 0)
        # A history of probability zero has no belief: any will do.
        belief = np.where(chance > 0, belief, 1 / belief.shape[-1])
        action = np.asarray(solution.action(t, jnp.asarray(belief)))  # [B, N]
        paid = np.swapaxes(reward, 1, 2)[task, action]  # [B, N, S]
        total += float(model.discount) ** t * np.where(joint > 0, joint * paid, 0).sum(
            (1, 2)
        )
        moved = np.einsum("bns,bnsm->bnm", joint, np.moveaxis(p, 2, 1)[task, action])
        shown = np.swapaxes(z[task, action], 2, 3)  # [B, N, O, S']
        joint = (moved[:, :, None] * shown).reshape(len(reward), -1, p.shape[-1])
    return total
