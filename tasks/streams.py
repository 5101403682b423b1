"""Independent random seed streams of one seed, by name.

Training tasks and test tasks come from different streams, so that their samples are
independent for every seed. Changing the numbers would change the results of a seed:
append new streams and renumber none.
"""

from enum import IntEnum

import jax
from jaxtyping import Array, Key


class Stream(IntEnum):
    """Purpose of a random seed stream."""

    TRAIN_TASKS = 0
    TRAIN_EPISODES = 1
    TEST_TASKS = 2
    TEST_SUPPORT = 3
    TEST_EPISODES = 4
    TRAIN_SETS = 5  # ambiguity sets
    TEST_SETS = 6
    TRAIN_RANDOM = 7  # episodes of random actions
    VALIDATION_SUPPORT = 8
    VALIDATION_EPISODES = 9
    SELF_PLAY = 10  # episodes of a model that trains itself
    SELF_TIES = 11  # order of episodes of equal score
    RANDOM_POLICIES = 12  # policies of random play


def stream_key(seed: int, stream: Stream) -> Key[Array, ""]:
    """Return the key of one random seed stream of a seed."""
    return jax.random.fold_in(jax.random.key(seed), int(stream))
