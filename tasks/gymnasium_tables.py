"""Gymnasium's tables of transitions as models."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np

from sdm.tasks.models import MDP, check_model

# P[s][a]: (probability, next state, reward, whether the episode ends there) each.
Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]


def from_gymnasium(
    source: "gymnasium.Env[Any, Any] | Table",
    *,
    discount: float,
    initial: Sequence[float] | np.ndarray | None = None,
) -> MDP:
    """The MDP of an environment with a table `P`, such as FrozenLake or CliffWalking.

    Where an episode can end in a state that is not a dead end by itself (worth nothing
    and never left), one more state, the last, stands for its end.

    Args:
        source: an environment, wrapped or not, whose `unwrapped.P[s][a]` lists
            (probability, next state, reward, terminated); or such a table.
        discount: factor per stage, in [0, 1], which environments do not say.
        initial: distribution of the first state; None for the environment's
            `initial_state_distrib`.

    Raises:
        ValueError: if there is no table or no initial distribution, or what they hold
            makes no MDP.

    """
    table: Any = source
    if isinstance(source, gymnasium.Env):
        inner = source.unwrapped
        table = getattr(inner, "P", None)
        if table is None:
            raise ValueError(f"{type(inner).__name__} has no table `P` of transitions")
        if initial is None:
            initial = getattr(inner, "initial_state_distrib", None)
    if initial is None:
        raise ValueError("there is no distribution of the first state: pass `initial`")
    if not table or 0 not in table:
        raise ValueError("P must be a table with the states 0, 1, …")
    states, actions = len(table), len(table[0])
    if np.shape(initial) != (states,):
        raise ValueError(f"initial has shape {np.shape(initial)}: must be ({states},)")
    transition = np.zeros((states + 1, actions, states + 1))
    reward = np.zeros((states + 1, actions))
    endings = []
    for s in range(states):
        for a in range(actions):
            try:
                rows = [(c, n, r, over) for c, n, r, over in table[s][a]]
                extra = len(table[s]) > actions
            except (KeyError, IndexError) as error:
                raise ValueError(f"P[{s}][{a}] is missing") from error
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"P[{s}][{a}] must list (probability, next state, reward, "
                    "terminated)"
                ) from error
            if extra:
                raise ValueError(f"P[{s}] has more actions than P[0]: {len(table[s])}")
            for chance, following, paid, over in rows:
                if not 0 <= chance <= 1:
                    raise ValueError(
                        f"P[{s}][{a}] has the probability {chance:g}: must be 0 to 1"
                    )
                if not 0 <= following < states:
                    raise ValueError(
                        f"P[{s}][{a}] leads to state {following}: must be 0 to "
                        f"{states - 1}"
                    )
                transition[s, a, following] += chance
                reward[s, a] += chance * paid
                if over and chance:
                    endings.append((s, a, following, chance))
    transition[states, :, states] = 1
    stays = transition[range(states + 1), :, range(states + 1)]
    dead = (stays == 1).all(-1) & (reward == 0).all(-1)
    open_endings = [end for end in endings if not dead[end[2]]]
    for s, a, following, chance in open_endings:
        transition[s, a, following] -= chance
        transition[s, a, states] += chance
    size = states + bool(open_endings)
    first = np.zeros(size)
    first[:states] = initial
    model = MDP(
        transition=jnp.asarray(np.maximum(transition[:size, :, :size], 0)),
        reward=jnp.asarray(reward[:size]),
        initial=jnp.asarray(first),
        discount=discount,
    )
    check_model(model)
    return model
