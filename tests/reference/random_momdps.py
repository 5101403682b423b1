"""Random small models with mixed observability, and their values by recursion."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from random_models import rows

from sdm.solvers_jax import MOMDP


def random_momdp(
    seed,
    *,
    visible=3,
    hidden=2,
    actions=2,
    symbols=0,
    first=False,
    constant=False,
    batch=(),
    lists=0,
    masked=False,
    observes_reward=False,
):
    """Return a model; `lists` successors of each x and a, 0 for all X."""
    random = np.random.default_rng(seed)
    count = lists or visible
    index = None
    if lists:
        order = np.argsort(random.random((visible, actions, visible)), axis=-1)
        index = order[..., :lists]
    shape = (*batch, visible, hidden, actions)
    reward = random.normal(size=shape)
    if observes_reward:
        reward = reward.round()
    mask = None
    if masked:
        mask = random.random((*batch, visible, actions)) < 0.5
        mask[..., 0] |= ~mask.any(-1)
    start = rows(random, *batch, visible * hidden)
    moved = None if constant else rows(random, *shape, count, hidden)
    shown = rows(random, *batch, actions, visible, hidden, symbols) if symbols else None
    seen = rows(random, *batch, visible, hidden, symbols) if first else None
    return MOMDP(
        transition=jnp.asarray(rows(random, *shape, count)),
        reward=jnp.asarray(reward),
        initial=jnp.asarray(start.reshape(*batch, visible, hidden)),
        discount=0.9,
        successors=index,
        hidden_transition=None if moved is None else jnp.asarray(moved),
        observation=None if shown is None else jnp.asarray(shown),
        initial_observation=None if seen is None else jnp.asarray(seen),
        admissible=None if mask is None else jnp.asarray(mask),
        observes_reward=observes_reward,
    )


def outcomes(model, joint, x, a):
    """Yield x', the symbol, the reward seen and the joint weight of y' after (x, a)."""
    transition, reward, index = model.transition, model.reward, model.successors
    _, hidden, _, symbols = model.sizes
    groups = [None]
    if model.observes_reward:
        groups = sorted(set(reward[x, :, a]))
    for paid in groups:
        weight = joint if paid is None else joint * (reward[x, :, a] == paid)
        for following in sorted(set(index[x, a])):
            moved = np.zeros(hidden)
            for n in np.flatnonzero(index[x, a] == following):
                for y in range(hidden):
                    mass = weight[y] * transition[x, y, a, n]
                    if model.hidden_transition is None:
                        moved[y] += mass
                    else:
                        moved += mass * model.hidden_transition[x, y, a, n]
            for o in range(symbols):
                seen = 1.0
                if model.observation is not None:
                    seen = model.observation[a, following, :, o]
                yield int(following), o, paid, moved * seen


def starts(model):
    """Yield the first x, its symbol and the joint weight of y."""
    visible, _, _, symbols = model.sizes
    for x in range(visible):
        joint = model.initial[x]
        if model.initial_observation is None:
            yield x, 0, joint
            continue
        for o in range(symbols):
            yield x, o, joint * model.initial_observation[x, :, o]


def value(model, horizon, choose=None):
    """Value of acting optimally, or as `choose(t, x, belief)` says, by recursion."""
    model = eqx.tree_at(
        lambda m: m.successors, model, model.listed(), is_leaf=lambda x: x is None
    )
    model = jax.tree.map(np.asarray, model)  # the loops below are slow otherwise
    actions, mask = model.sizes[2], model.admissible

    def after(t, x, joint):
        if t == horizon or joint.sum() == 0:
            return 0.0
        allowed = [a for a in range(actions) if mask is None or mask[x, a]]
        if choose is not None:
            chosen = choose(t, x, joint / joint.sum())
            assert chosen in allowed
            allowed = [chosen]
        best = -np.inf
        for a in allowed:
            total = float(joint @ model.reward[x, :, a])
            for following, _, _, rest in outcomes(model, joint, x, a):
                total += float(model.discount) * after(t + 1, following, rest)
            best = max(best, total)
        return best

    return sum(after(0, x, joint) for x, _, joint in starts(model))
