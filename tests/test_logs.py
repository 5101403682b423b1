"""Logged episodes."""

import numpy as np

from sdm.data.logs import NOTHING, Logs


def two_episodes():
    return Logs(
        observation=np.array([[0, 1, 0], [2, NOTHING, NOTHING]]),
        action=np.array([[1, 0], [1, NOTHING]]),
        reward=np.array([[0.5, 1.0], [2.0, 0.0]]),
        done=np.array([False, True]),
        task=np.array([0, 1]),
        probability=np.array([[0.5, 0.25], [1.0, 1.0]]),
        observations=("low", "normal", "high"),
        actions=("wait", "treat"),
        tasks=("north", "south"),
    )


def test_lengths_count_decisions():
    logs = two_episodes()
    assert (logs.episodes, logs.horizon) == (2, 2)
    assert logs.length.tolist() == [2, 1]


def test_selected_episodes_keep_names():
    chosen = two_episodes().select(np.array([False, True]))
    assert chosen.episodes == 1
    assert chosen.done.tolist() == [True]
    assert chosen.probability.tolist() == [[1.0, 1.0]]
    assert chosen.task.tolist() == [1]
    assert chosen.tasks == ("north", "south")
