r"""Exact POMDP value functions as α-vectors, by incremental pruning.

    Γ_t = prune( ∪_a  prune( ⊕_o prune( Γ_{a,o} ) ) ),
    Γ_{a,o} = { r_a / |O| + γ P_a diag(Z_{·,o}) α : α ∈ Γ_{t+1} }

(Cassandra, Littman, Zhang, 1997). A vector is kept if a linear programme finds a belief
at which it is better than all others by more than `TOLERANCE`. Unlike the belief tree,
the answer holds for every belief; the number of vectors can grow doubly exponentially
with the horizon, so this is for small tasks. Host arrays, double precision.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

TOLERANCE = 1e-9  # what one pruning may cost the value at a belief
MAX_VECTORS = 20_000


class Vectors(NamedTuple):
    """The α-vectors of one stage, and the action that each takes first."""

    vector: Float[np.ndarray, "N S"]
    action: Int[np.ndarray, " N"]


class PruningError(RuntimeError):
    """More α-vectors than were allowed."""

    def __init__(self, vectors: int, stage: int) -> None:
        """Say how many, and where."""
        super().__init__(
            f"{vectors} α-vectors are to be compared at stage {stage}, more than "
            f"{MAX_VECTORS}"
        )
        self.hint = "use the point-based method, or a shorter horizon"


def prune(vectors: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "M S"]:
    """Those that are best somewhere on the simplex."""
    left = np.unique(vectors, axis=0)
    kept: list[np.ndarray] = []
    # The best at each corner is there for certain.
    for s in range(vectors.shape[1]):
        left = _move_best(left, np.eye(vectors.shape[1])[s], kept)
    while len(left):
        belief = _witness(left[-1], np.array(kept))
        if belief is None:
            left = left[:-1]
        else:
            left = _move_best(left, belief, kept)
    return np.array(kept)


def _move_best(
    left: np.ndarray, belief: np.ndarray, kept: list[np.ndarray]
) -> np.ndarray:
    """Keep the best of `left` at a belief if it beats those kept; return the rest."""
    if not len(left):
        return left
    value = left @ belief
    at = int(value.argmax())
    if not kept or value[at] > (np.array(kept) @ belief).max():
        kept.append(left[at])
        return np.delete(left, at, axis=0)
    return left


def _witness(vector: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """A belief at which a vector beats all others by more than the tolerance."""
    if (others >= vector).all(axis=1).any():
        return None
    states = len(vector)
    # Variables: the belief, and by how much it is better.
    found = linprog(
        np.append(np.zeros(states), -1.0),
        A_ub=np.hstack([others - vector, np.ones((len(others), 1))]),
        b_ub=np.zeros(len(others)),
        A_eq=np.append(np.ones(states), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, 1)] * states + [(None, None)],
        method="highs",
        options={
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
        },
    )
    if found.status != 0 or -found.fun <= TOLERANCE:
        return None
    belief = np.maximum(found.x[:states], 0)
    belief /= belief.sum()
    better = vector @ belief > (others @ belief).max()
    return belief if better else None


def exact_vectors(
    transition: Float[np.ndarray, "S A S"],
    observation: Float[np.ndarray, "A S O"],
    reward: Float[np.ndarray, "S A"],
    discount: float,
    *,
    horizon: int,
) -> list[Vectors]:
    """α-vectors of every stage, stage 0 first.

    Raises:
        PruningError: if too many vectors would have to be compared.

    """
    states, actions = reward.shape
    symbols = observation.shape[-1]
    after = np.zeros((1, states))
    stages: list[Vectors] = []
    for t in reversed(range(horizon)):
        best = []
        for a in range(actions):
            total = np.zeros((1, states))
            for o in range(symbols):
                back = after * observation[a, :, o] @ transition[:, a].T
                each = prune(reward[:, a] / symbols + discount * back)
                if (count := len(total) * len(each)) > MAX_VECTORS:
                    raise PruningError(count, t)
                total = prune((total[:, None] + each[None]).reshape(-1, states))
            best.append(total)
        after = prune(np.concatenate(best))
        # Pruning keeps rows as they are; equal ones go to the lowest action.
        first = [
            min(a for a, rows in enumerate(best) if (rows == row).all(1).any())
            for row in after
        ]
        stages.insert(0, Vectors(after, np.array(first, np.int32)))
    return stages


def pruning_loss(symbols: int, horizon: int) -> float:
    """How far pruning can have carried the value down, at any belief."""
    return TOLERANCE * (2 * symbols + 1) * horizon
