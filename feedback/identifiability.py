"""Whether preferences determine the scores of a Bradley–Terry model.

- If the graph of compared items is not connected, scores of different components are
  not comparable, whatever the penalty.
- The maximum-likelihood scores are finite and unique up to a constant if and only if
  the directed graph of wins is strongly connected, with a tie as an edge in both
  directions (Ford, 1957; Hunter, 2004). Otherwise the preferences are separable: some
  items win every comparison with the others, and only a penalty keeps scores finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linprog
from scipy.sparse.csgraph import connected_components

SOME = 1e-7  # least total margin of separable segments, above the tolerance of HiGHS


class DegeneratePreferences(ValueError):
    """Preferences that determine no reward."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Set the message, and a hint on how to fix the problem."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Identifiability:
    """What preferences determine.

    Attributes:
        components: connected components of the graph of compared items; items without
            a comparison are components, too.
        separable: whether the maximum-likelihood scores are infinite.
        ties: share of ties.
        comparisons: number of preferences.

    """

    components: int
    separable: bool
    ties: float
    comparisons: int


def pairs_identify(
    pairs: Int[np.ndarray, "C 2"], outcome: Float[np.ndarray, " C"], items: int
) -> Identifiability:
    """Return what preferences between single items determine."""
    winners = np.concatenate([pairs[outcome > 0], pairs[outcome < 1][:, ::-1]])
    ones = np.ones(len(winners))
    wins = sparse.csr_array((ones, (winners[:, 0], winners[:, 1])), (items, items))
    weak, _ = connected_components(wins, directed=True, connection="weak")
    strong, _ = connected_components(wins, directed=True, connection="strong")
    ties = float((outcome == 0.5).mean()) if len(outcome) else 0.0
    return Identifiability(int(weak), int(strong) > int(weak), ties, len(outcome))


def segments_identify(
    design: sparse.csr_array, outcome: Float[np.ndarray, " C"]
) -> Identifiability:
    """Return what preferences between segments determine.

    `components` is the number of dimensions of scores that no comparison depends on; a
    constant, which shifts all scores, is one of them if all segments have one length.
    Preferences are separable if some scores explain all of them without an error, and
    one with a margin (Albert and Anderson, 1984): a linear program.
    """
    undetermined = design.shape[1] - int(np.linalg.matrix_rank(design.toarray()))
    tied = outcome == 0.5
    signed = sparse.diags_array(np.sign(outcome - 0.5)) @ design
    decided, equal = signed[~tied], design[tied]
    separable = False
    if decided.shape[0]:
        found = linprog(
            -np.asarray(decided.sum(axis=0)).ravel(),
            A_ub=-decided,
            b_ub=np.zeros(decided.shape[0]),
            A_eq=equal if equal.shape[0] else None,
            b_eq=np.zeros(equal.shape[0]) if equal.shape[0] else None,
            bounds=(-1, 1),
        )
        separable = bool(found.status == 0 and -found.fun > SOME)
    return Identifiability(undetermined, separable, float(tied.mean()), len(outcome))


def check_identifiable(
    found: Identifiability,
    captions: Sequence[str],
    *,
    penalty: float,
    unit: str = "components",
    hint: str = "raise `--comparisons`",
) -> None:
    """Raise `DegeneratePreferences` unless preferences determine the scores.

    Args:
        found: what the preferences determine.
        captions: captions of the items.
        penalty: penalty of the fit, without which separable scores are infinite.
        unit: what `found.components` counts.
        hint: what helps if they are several.

    """
    if len(captions) < 2:
        raise DegeneratePreferences(
            f"preferences: at least 2 different items are needed, found {len(captions)}"
        )
    if found.ties == 1.0:
        raise DegeneratePreferences(
            "preferences: every comparison is a tie",
            "ask a better judge, or compare other items",
        )
    if found.components > 1:
        raise DegeneratePreferences(
            f"preferences: the compared items are not connected, found "
            f"{found.components} {unit} ({found.comparisons} comparisons)",
            hint,
        )
    if found.separable and penalty == 0:
        raise DegeneratePreferences(
            "preferences: separable, so their scores are infinite without a penalty",
            "pass `--penalty 0.01`",
        )
