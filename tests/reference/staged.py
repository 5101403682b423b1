"""Random tasks that change with the stage, and the same tasks without that.

The states of the second are pairs (t, s) of a stage and a state, so that nothing
depends on the stage any more.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import RobustMDP
from sdm.tasks.transitions import dense

STAGED = ("transition", "observation", "reward", "admissible")


def drawn_by_stage(draw, seed, horizon, *, batch=(), **options):
    """A task, or a batch, of which every stage is one of `draw`'s random tasks."""
    each = [draw(seed * horizon + t, **options) for t in range(horizon)]
    if batch:
        each = [draw(seed * horizon + t, *batch, **options) for t in range(horizon)]
    axis = each[0].initial.ndim - 1
    return dataclasses.replace(
        each[0],
        **{n: jnp.stack([getattr(e, n) for e in each], axis) for n in has(each[0])},
    )


def has(model):
    """The names of the arrays of a model that can change with the stage."""
    return [n for n in STAGED if getattr(model, n, None) is not None]


def repeated(model, horizon, names=STAGED):
    """A stationary model with some of its arrays repeated at every stage."""
    axis = model.initial.ndim - 1

    def copies(x):
        return jax.tree.map(lambda a: jnp.stack([a] * horizon, axis), x)

    chosen = [n for n in has(model) if n in names]
    return dataclasses.replace(model, **{n: copies(getattr(model, n)) for n in chosen})


def random_robust(seed, *, models=2, alpha=0.4):
    """A robust MDP with three states and two actions."""
    random = np.random.default_rng(seed)
    return RobustMDP(
        transition=jnp.asarray(random.dirichlet(np.full(3, 0.6), (models, 3, 2))),
        reward=jnp.asarray(random.normal(size=(3, 2))),
        initial=jnp.asarray(random.dirichlet(np.ones(3))),
        alpha=alpha,
        discount=0.9,
    )


def expanded(model, horizon):
    """One task that changes with the stage, as a task over pairs (t, s)."""
    states = len(model.initial)
    ambiguous = hasattr(model, "alpha")
    moves = np.asarray(dense(model.transition))
    if not ambiguous:
        moves = moves[:, None]  # [T, K, S, A, S]
    stages, models, _, actions, _ = moves.shape
    assert stages == horizon
    pairs = horizon * states
    p = np.zeros((models, horizon, states, actions, horizon, states))
    for t in range(horizon):  # what follows the last stage has no effect
        p[:, t, :, :, (t + 1) % horizon] = moves[t]
    p = p.reshape(models, pairs, actions, pairs)
    fields = {
        "transition": p if ambiguous else p[0],
        "reward": np.asarray(model.reward).reshape(pairs, actions),
        "initial": np.pad(np.asarray(model.initial), (0, pairs - states)),
    }
    if getattr(model, "admissible", None) is not None:
        fields["admissible"] = np.asarray(model.admissible).reshape(pairs, actions)
    if getattr(model, "observation", None) is not None:
        shown = np.asarray(model.observation)
        if not ambiguous:
            shown = shown[:, None]  # [T, K, A, S, O]
        shown = np.moveaxis(np.roll(shown, 1, axis=0), 0, 2)  # seen in stage t + 1
        shown = shown.reshape(models, actions, pairs, -1)
        fields["observation"] = shown if ambiguous else shown[0]
        if model.initial_observation is not None:
            first = np.asarray(model.initial_observation)
            fields["initial_observation"] = np.concatenate([first] * horizon, axis=-2)
    return dataclasses.replace(model, **{n: jnp.asarray(x) for n, x in fields.items()})


def over_pairs(belief, t, horizon):
    """Beliefs over states at stage `t` as beliefs over pairs."""
    states = belief.shape[-1]
    before = [(0, 0)] * (belief.ndim - 1)
    return jnp.pad(belief, [*before, (t * states, (horizon - 1 - t) * states)])
