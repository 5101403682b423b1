r"""Exact POMDP value functions as α-vectors, by incremental pruning.

    Γ_t = prune( ∪_a  prune( ⊕_o prune( Γ_{a,o} ) ) ),
    Γ_{a,o} = { r_a / |O| + γ P_a diag(Z_{·,o}) α : α ∈ Γ_{t+1} }

(Cassandra, Littman, Zhang, 1997). A vector is kept if a linear program finds a belief
at which it is better than all others by more than `TOLERANCE`. Unlike the belief tree,
the solution holds for every belief. The number of vectors can grow doubly exponentially
with the horizon, so use it for small tasks. It runs on the host in double precision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog

from sdm.solvers_jax.belief_backup import Plans
from sdm.solvers_jax.belief_model import (
    BeliefModel,
    belief_model,
    equal_actions,
    impossible,
    restrict,
    standardise,
)
from sdm.solvers_jax.belief_solution import Rounds, flattened, shaped
from sdm.solvers_jax.certificate import certificate, close
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.tasks.models import POMDP, batch_shape
from sdm.tasks.stages import at_stage

TOLERANCE = 1e-9  # largest loss of value at a belief by one pruning
SOLVER_ERROR = 2e-10  # of a margin, from the tolerances of `linprog` below
MAX_VECTORS = 20_000
RELATIVE_ZERO = 1e-12  # rewards relative to the largest that are only rounding
# Bounds have converged if they are this close, relative to the value or to the typical
# reward: far wider than the loss of pruning, except where rewards differ so much that
# the loss matters. In single precision, rounding is larger.
ENOUGH = {"float64": 1e-6, "float32": 1e-3}


class Vectors(NamedTuple):
    """The α-vectors of one stage, and the first action of each."""

    vector: Float[np.ndarray, "N S"]
    action: Int[np.ndarray, " N"]


class PruningError(RuntimeError):
    """The number of α-vectors exceeds the limit."""

    def __init__(self, vectors: int, stage: int) -> None:
        """Set the message and the hint."""
        super().__init__(
            f"incremental pruning: must compare at most {MAX_VECTORS} α-vectors, found "
            f"{vectors} at stage {stage}"
        )
        self.hint = "use the point-based method or a shorter horizon"


def prune(vectors: Float[np.ndarray, "N S"]) -> Float[np.ndarray, "M S"]:
    """Return the vectors that are optimal somewhere on the belief simplex."""
    left = np.unique(vectors, axis=0)
    kept: list[np.ndarray] = []
    # The best vector at each corner of the simplex is never pruned.
    for s in range(vectors.shape[1]):
        left = _move_best(left, np.eye(vectors.shape[1])[s], kept)
    while len(left):
        belief = _witness(left[-1], np.array(kept))
        if belief is None:
            left = left[:-1]
        elif len(rest := _move_best(left, belief, kept)) < len(left):
            left = rest
        else:  # never drop a vector without a proof that it is not needed
            kept.append(left[-1])
            left = left[:-1]
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
    """Return a belief at which a vector beats all others by more than `TOLERANCE`.

    Returns None if there is no such belief. If the linear program is solved badly, the
    vector need not be better at the belief returned.
    """
    free = ~impossible(vector)
    if (others >= vector).all(axis=1).any() or not free.any():
        return None
    # The vector is only useful where its actions are admissible, and there it beats
    # all vectors whose actions are not.
    others = others[~impossible(others[:, free]).any(1)]
    others, vector = np.where(free, others, 0), np.where(free, vector, 0)
    states = len(vector)
    # Variables: the belief, and the margin of the vector there.
    found = linprog(
        np.append(np.zeros(states), -1.0),
        A_ub=np.hstack([others - vector, np.ones((len(others), 1))]),
        b_ub=np.zeros(len(others)),
        A_eq=np.append(np.ones(states), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, float(each)) for each in free] + [(None, None)],
        method="highs",
        options={
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
        },
    )
    if found.status == 0 and -found.fun <= TOLERANCE:
        return None
    belief = np.full(states, 1 / states) if found.x is None else found.x[:states]
    belief = np.maximum(belief, 0)
    return np.asarray(belief / belief.sum())


def exact_vectors(
    arrays: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray]],
    discount: float,
    *,
    horizon: int,
) -> list[Vectors]:
    """Return the α-vectors of every stage, stage 0 first.

    Args:
        arrays: function of the stage that returns the transition [S, A, S], the
            observation [A, S, O] and the reward [S, A].
        discount: factor per stage.
        horizon: number of decisions T.

    Raises:
        PruningError: if more than `MAX_VECTORS` vectors must be compared.

    """
    stages: list[Vectors] = []
    for t in reversed(range(horizon)):
        transition, observation, reward = arrays(t)
        states, actions = reward.shape
        symbols = observation.shape[-1]
        after = stages[0].vector if stages else np.zeros((1, states))
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
        # Pruning does not change rows; equal rows belong to the lowest action.
        first = [
            min(a for a, rows in enumerate(best) if (rows == row).all(1).any())
            for row in after
        ]
        stages.insert(0, Vectors(after, np.array(first, np.int32)))
    return stages


def pruning_loss(symbols: int, horizon: int) -> float:
    """Return the largest loss of value by pruning, at any belief."""
    return (TOLERANCE + SOLVER_ERROR) * (2 * symbols + 1) * horizon


def _padded(
    found: Sequence[Sequence[Vectors]],
) -> tuple[Float[np.ndarray, "B T N S"], Int[np.ndarray, "B U N"]]:
    """Return each task's α-vectors after a decision, and their actions, padded."""
    widest = max(len(stage.action) for stages in found for stage in stages)

    def padded(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, widest - len(x)), *[(0, 0)] * (x.ndim - 1)), mode="edge")

    horizon, states = len(found[0]), found[0][0].vector.shape[1]
    nothing = np.zeros((widest, states))
    vector = [[*(padded(s.vector) for s in stages[1:]), nothing] for stages in found]
    choice = [[padded(s.action) for s in stages[1:]] for stages in found]
    shape = (len(found), horizon - 1, widest)
    return np.array(vector), np.array(choice).reshape(shape).astype(np.int32)


def typical_reward(reward: Float[np.ndarray, "... S A"]) -> float:
    """Return the size of standardised rewards without rare large penalties.

    Linear programs and `TOLERANCE` use this unit: the range of the rewards can be
    arbitrarily larger than the values of good policies.
    """
    size = np.abs(np.where(impossible(reward), 0, reward))
    some = size[size > RELATIVE_ZERO * size.max()]
    typical = max(float(np.median(some)) if len(some) else 0.0, float(reward.max()))
    return typical if typical > 0 else 1.0


@register_method
@dataclass(frozen=True)
class IncrementalPruning:
    """Exact value functions of small POMDPs, by incremental pruning."""

    name: ClassVar[str] = "exact"
    handles: ClassVar[tuple[type, ...]] = (POMDP,)
    by_stage: ClassVar[bool] = True

    def solve(self, model: POMDP, *, horizon: int) -> POMDPSolution:
        """Solve every POMDP of the batch exactly, up to rounding and `TOLERANCE`.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T.

        Raises:
            PruningError: if a task is too large.

        """
        batch, equal = batch_shape(model), equal_actions(model)
        actions = tuple(sorted(set(equal)))
        task, units = standardise(restrict(belief_model(model), actions), horizon)
        flat, own = flattened((task, units), len(batch))
        size = np.array([typical_reward(r) for r in np.asarray(flat.reward, float)])
        found = _vectors(flat, size, horizon)
        vector, choice = _padded(found)
        root = np.asarray(flat.root, np.float64)
        mass = np.asarray(flat.root_mass[:, 0], np.float64)
        value = np.array(
            [
                (chance * (beliefs @ stages[0].vector.T).max(-1)).sum()
                for stages, beliefs, chance in zip(found, root, mass, strict=True)
            ]
        )
        lost = size * pruning_loss(flat.observation.shape[-1], horizon)
        low, high, _ = certificate(flat, own, horizon).bounds(value, value + lost)
        kind = flat.reward.dtype
        enough = ENOUGH[kind.name]
        done = close(low, high, enough, enough * size * np.asarray(own.scale))
        lower, upper = (shaped(x.astype(kind), batch) for x in (low, high))
        return POMDPSolution(
            plans=Plans(
                shaped(vector[:, :, :, None].astype(kind), batch),
                shaped(np.zeros_like(vector, kind), batch),
            ),
            choice=shaped(np.asarray(actions, np.int32)[choice], batch),
            model=task,
            rounds=Rounds((vector.shape[2],), lower[..., None], upper[..., None]),
            units=units,
            equal=equal,
            value=lower,
            lower=lower,
            upper=upper,
            converged=shaped(done, batch),
        )


def _vectors(
    model: BeliefModel, size: Float[np.ndarray, " B"], horizon: int
) -> list[list[Vectors]]:
    """Return the α-vectors of each task, pruned in units of `size`."""
    hosted = jax.tree.map(lambda x: np.asarray(x, np.float64), model)

    def of_task(number: int) -> list[Vectors]:
        task, unit = jax.tree.map(lambda x: x[number], hosted), size[number]

        def arrays(t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            now: Any = at_stage(task, t)
            return now.transition[0], now.observation[0], now.reward / unit

        discount = float(model.discount[number])
        stages = exact_vectors(arrays, discount, horizon=horizon)
        return [Vectors(unit * vectors, choice) for vectors, choice in stages]

    return [of_task(number) for number in range(len(size))]
