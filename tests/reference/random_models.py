"""Random small tasks, and files' worth of well-known ones, for the tests of solvers."""

import jax
import jax.numpy as jnp
import numpy as np

from sdm.solvers_jax import APOMDP, MDP, POMDP


def rows(random, *shape):
    """Random probability distributions along the last axis."""
    return random.dirichlet(np.full(shape[-1], 0.6), shape[:-1])


def tasks_of(model):
    """The tasks of a batch, one by one."""
    return [
        jax.tree.map(lambda x: x[i] if np.ndim(x) else x, model)  # noqa: B023
        for i in range(len(model.reward))
    ]


def random_mdp(seed, *batch, states=3, actions=2, discount=0.9):
    random = np.random.default_rng(seed)
    return MDP(
        transition=jnp.asarray(rows(random, *batch, states, actions, states)),
        reward=jnp.asarray(random.normal(size=(*batch, states, actions))),
        initial=jnp.asarray(rows(random, *batch, states)),
        discount=discount,
    )


def random_pomdp(seed, *, states=3, actions=2, symbols=2, batch=(), first=True):
    random = np.random.default_rng(seed)
    seen = rows(random, *batch, states, symbols) if first else None
    return POMDP(
        transition=jnp.asarray(rows(random, *batch, states, actions, states)),
        observation=jnp.asarray(rows(random, *batch, actions, states, symbols)),
        reward=jnp.asarray(random.normal(size=(*batch, states, actions))),
        initial=jnp.asarray(rows(random, *batch, states)),
        discount=0.9,
        initial_observation=None if seen is None else jnp.asarray(seen),
    )


def random_apomdp(
    seed, alpha, *, models=2, states=3, actions=2, symbols=2, batch=(), first=True
):
    random = np.random.default_rng(seed)
    shape = (*batch, models)
    seen = rows(random, *shape, states, symbols) if first else None
    return APOMDP(
        transition=jnp.asarray(rows(random, *shape, states, actions, states)),
        observation=jnp.asarray(rows(random, *shape, actions, states, symbols)),
        reward=jnp.asarray(random.normal(size=(*batch, states, actions))),
        initial=jnp.asarray(rows(random, *batch, states)),
        alpha=alpha,
        discount=0.9,
        initial_observation=None if seen is None else jnp.asarray(seen),
    )


def tiger(discount=0.95):
    """Two doors, a tiger behind one (Kaelbling, Littman, Cassandra, 1998)."""
    listen, left, right = 0, 1, 2
    transition = np.full((2, 3, 2), 0.5)
    transition[:, listen] = np.eye(2)
    observation = np.full((3, 2, 2), 0.5)
    observation[listen] = [[0.85, 0.15], [0.15, 0.85]]
    reward = np.zeros((2, 3))
    reward[:, listen] = -1
    reward[0, left] = reward[1, right] = -100
    reward[1, left] = reward[0, right] = 10
    return POMDP(
        *map(jnp.asarray, (transition, observation, reward, [0.5, 0.5])), discount
    )


def crying_baby(discount=0.9):
    """A baby that cries when hungry (Kochenderfer, 2015, *Decision making*)."""
    hungry, sated, feed, wait = 0, 1, 0, 1
    transition = np.zeros((2, 2, 2))
    transition[:, feed, sated] = 1
    transition[hungry, wait, hungry] = 1
    transition[sated, wait] = [0.1, 0.9]
    observation = np.zeros((2, 2, 2))  # the first symbol is crying
    observation[:, hungry] = [0.8, 0.2]
    observation[:, sated] = [0.1, 0.9]
    reward = np.array([[-15.0, -10.0], [-5.0, 0.0]])
    return POMDP(
        *map(jnp.asarray, (transition, observation, reward, [0.0, 1.0])), discount
    )


def alternating():
    """A POMDP of two states in turn, with one admissible action in each, 0 and 1.

    Symbols say nothing. The reward is 1 in state 0, where the task begins.
    """
    turn = jnp.broadcast_to(jnp.array([[0.0, 1.0], [1.0, 0.0]])[:, None], (2, 2, 2))
    return POMDP(
        transition=turn,
        observation=jnp.full((2, 2, 2), 0.5),
        reward=jnp.array([[1.0, 1.0], [0.0, 0.0]]),
        initial=jnp.array([1.0, 0.0]),
        discount=0.9,
        admissible=jnp.eye(2, dtype=bool),
    )
