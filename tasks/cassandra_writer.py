"""Write Cassandra's `.POMDP` text format, which `cassandra` describes and reads."""

import gzip
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdm.storage.files import temporary_name
from sdm.tasks.admissible import check_no_mask, with_mask
from sdm.tasks.cassandra_words import RESERVED
from sdm.tasks.models import MDP, POMDP, Model, check_model
from sdm.tasks.stages import check_stationary
from sdm.tasks.transitions import dense

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def save_pomdp(
    model: Model,
    path: str | os.PathLike[str],
    *,
    states: Sequence[str] = (),
    actions: Sequence[str] = (),
    observations: Sequence[str] = (),
) -> None:
    """Write one task in Cassandra's format, with exact numbers.

    An MDP is written without observations.

    Args:
        model: the task.
        path: the file; compressed by gzip if its name ends with `.gz`.
        states: a name for each state; numbers if empty.
        actions: a name for each action; numbers if empty.
        observations: a name for each observation; numbers if empty.

    Raises:
        ValueError: if the model is not a valid single POMDP or MDP; if it has an
            observation before the first action or arrays that depend on the stage,
            which the format lacks; or if a name is invalid.
        OSError: if the file cannot be written.

    """
    if not isinstance(model, POMDP | MDP):
        raise ValueError(
            f"model: must be a POMDP or an MDP, found {type(model).__name__}"
        )
    check_model(model)
    check_no_mask(with_mask(model), "the `.POMDP` format")
    check_stationary(model, "the `.POMDP` format, unlike `save_npz`,")
    if np.ndim(model.initial) != 1:
        raise ValueError("model: must be one task, found a batch")
    count_states, count_actions = model.reward.shape
    lines = [
        f"discount: {float(model.discount)!r}",
        "values: reward",
        _names("states", states, count_states),
        _names("actions", actions, count_actions),
        *_observations(model, observations),
        f"start: {_row(np.asarray(model.initial))}",
        *_entries(model),
    ]
    _write(Path(path), "\n".join(lines) + "\n")


def _entries(model: POMDP | MDP) -> Iterator[str]:
    """Yield the lines of all entries."""
    moves, rewards = np.asarray(dense(model.transition)), np.asarray(model.reward)
    seen = None if isinstance(model, MDP) else np.asarray(model.observation)
    states, actions = rewards.shape
    for a in range(actions):
        yield from ("", f"T: {a}", *map(_row, moves[:, a]))
        if seen is not None:
            yield from ("", f"O: {a}", *map(_row, seen[a]))
    rest = ": *" if seen is None else ": * : *"
    yield ""
    for a in range(actions):
        for s in range(states):
            yield f"R: {a} : {s} {rest} {float(rewards[s, a])!r}"


def _write(path: Path, text: str) -> None:
    """Write a text atomically, compressed if the name says so."""
    data = text.encode()
    if path.suffix.lower() == ".gz":
        data = gzip.compress(data, mtime=0)  # the same bytes at any time
    with temporary_name(path) as temporary:
        temporary.write_bytes(data)


def _observations(model: POMDP | MDP, names: Sequence[str]) -> list[str]:
    """Return the preamble's line of observations, if the model has them."""
    if isinstance(model, POMDP):
        if model.initial_observation is not None:
            raise ValueError("model: must have no observation before the first action")
        return [_names("observations", names, model.observation.shape[-1])]
    if names:
        raise ValueError(f"`observations` has {len(names)} names: an MDP has none")
    return []


def _names(keyword: str, names: Sequence[str], count: int) -> str:
    """Return the preamble's line of states, actions or observations."""
    if not names:
        return f"{keyword}: {count}"
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"`{keyword}` has {len(names)} names: must be {count} distinct"
        )
    for name in names:
        if not NAME.fullmatch(name) or name in RESERVED:
            raise ValueError(
                f"`{keyword}` has `{name}`: must be letters, digits, `-` and `_`, "
                "start with a letter, and not be a reserved word"
            )
    return f"{keyword}: {' '.join(names)}"


def _row(row: np.ndarray) -> str:
    return " ".join(repr(float(x)) for x in row)
