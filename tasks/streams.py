"""Independent random streams of one seed, by name.

Training tasks and test tasks come from different streams, so that no evaluation ever
meets a training task, whatever the seed. The numbers are part of what a seed means:
new streams are appended, and none is renumbered.
"""

from enum import IntEnum

import jax
from jaxtyping import Array, Key


class Stream(IntEnum):
    """What the random numbers are for."""

    TRAIN_TASKS = 0
    TRAIN_EPISODES = 1
    TEST_TASKS = 2
    TEST_SUPPORT = 3
    TEST_EPISODES = 4
    TRAIN_SETS = 5  # ambiguity sets
    TEST_SETS = 6
    TRAIN_RANDOM = 7  # episodes of random actions


def stream_key(seed: int, stream: Stream) -> Key[Array, ""]:
    """The key of one stream of a seed."""
    return jax.random.fold_in(jax.random.key(seed), int(stream))
