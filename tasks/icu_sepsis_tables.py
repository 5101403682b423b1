"""Arrays of the package `icu-sepsis`, read without importing it.

Importing the package needs `gym`, which is no longer maintained. Its arrays are in
`envs/assets`: `dynamics.npz`, and `admissible_actions.txt`, whose first line has the
number of admissible actions of each state, and each further line those of one state.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.storage.arrays import read_arrays
from sdm.tasks.array_checks import check_rows
from sdm.tasks.imported import FamilyError

PACKAGE = "icu_sepsis"
INSTALL = "pip install --no-deps 'icu-sepsis>=2,<3'"
STATES, ACTIONS = 716, 25
DEATH, SURVIVAL, ENDED = 713, 714, 715  # the last follows the other two


@dataclass(frozen=True)
class IcuTables:
    """The published model: possible next states, and rows of probabilities.

    A row belongs to a state and one of its admissible actions, R in all. Its N entries
    are the probabilities of the state's possible next states.

    Attributes:
        successors: next states that some action in a state can lead to, ascending; the
            last one fills up shorter lists.
        state: state of each row.
        chance: the rows, with 0 for what fills up.
        row: index of the row of each state and admissible action; R + s for actions
            that are not admissible in state s.
        initial: distribution of the first state.
        expert: π(a | s), estimated from the clinicians' decisions.
        sofa: mean SOFA score in each state.

    """

    successors: Int[np.ndarray, "S N"]
    state: Int[np.ndarray, " R"]
    chance: Float[np.ndarray, "R N"]
    row: Int[np.ndarray, "S A"]
    initial: Float[np.ndarray, " S"]
    expert: Float[np.ndarray, "S A"]
    sofa: Float[np.ndarray, " S"]


@cache
def icu_tables() -> IcuTables:
    """Read the package's arrays.

    Raises:
        FamilyError: if the package is missing, or its files have other contents.

    """
    folder = _assets()
    try:
        names = ("tx_mat", "d_0", "expert_policy", "sofa_scores")
        arrays = read_arrays(folder / "dynamics.npz", names=names)
        transition, initial, expert, sofa = (arrays[name] for name in names)
        allowed = _admissible((folder / "admissible_actions.txt").read_text())
        if transition.shape != (STATES, ACTIONS, STATES):
            raise ValueError(
                f"tx_mat has shape {transition.shape}: must be "
                f"{(STATES, ACTIONS, STATES)}"
            )
        check_rows("tx_mat", transition)
        check_rows("d_0", initial)
    except (OSError, KeyError, ValueError) as error:
        raise FamilyError(
            f"family `icu-sepsis`: the files in {folder} cannot be read: {error}",
            f"install version 2 of the package: {INSTALL}",
        ) from error
    return _tables(transition, allowed, initial, expert, sofa)


def _assets() -> Path:
    """Return the package's folder of arrays; finding a package does not execute it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FamilyError(
            "family `icu-sepsis`: needs the package `icu-sepsis`, which is not "
            "installed",
            INSTALL,
        )
    return Path(spec.submodule_search_locations[0]) / "envs" / "assets"


def _admissible(text: str) -> Bool[np.ndarray, "S A"]:
    """Parse the lists of admissible actions."""
    first, *lists = (line.split() for line in text.splitlines())
    if len(first) != STATES or [len(x) for x in lists[:STATES]] != [*map(int, first)]:
        raise ValueError(
            f"admissible_actions.txt: must have the actions of {STATES} states, found "
            f"{len(first)} numbers and {len(lists)} lists"
        )
    allowed = np.zeros((STATES, ACTIONS), bool)
    for state, actions in enumerate(lists[:STATES]):
        allowed[state, [int(a) for a in actions]] = True
    return allowed


def _tables(
    transition: Float[np.ndarray, "S A S"],
    allowed: Bool[np.ndarray, "S A"],
    initial: Float[np.ndarray, " S"],
    expert: Float[np.ndarray, "S A"],
    sofa: Float[np.ndarray, " S"],
) -> IcuTables:
    """Return the tables of the package's arrays."""
    state, action = np.nonzero(allowed)
    possible = (transition > 0).any(1)
    count = possible.sum(-1)
    # A stable sort puts the possible states first, ascending.
    order = np.argsort(~possible, axis=-1, kind="stable")[:, : count.max()]
    last = np.take_along_axis(order, count[:, None] - 1, -1)
    filled = np.arange(count.max()) < count[:, None]
    successors = np.where(filled, order, last).astype(np.int32)
    rows = np.take_along_axis(transition[state, action], successors[state], -1)
    row = np.broadcast_to(len(state) + np.arange(STATES)[:, None], allowed.shape).copy()
    row[state, action] = np.arange(len(state))
    # After the end, when the expert does nothing, action 0 stands for that.
    nothing = expert.sum(-1) == 0
    acts = np.where(nothing[:, None], np.eye(ACTIONS)[0], expert)
    return IcuTables(
        successors=successors,
        state=state.astype(np.int32),
        chance=np.where(filled[state], rows, 0.0),
        row=row.astype(np.int32),
        initial=initial,
        expert=acts / acts.sum(-1, keepdims=True),
        sofa=sofa,
    )
