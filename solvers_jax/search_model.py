"""One POMDP as host arrays for depth-first search, and its first bounds.

The search is sequential and follows beliefs of few states, so it runs in NumPy and not
in JAX. Transitions keep lists of possible next states if the model has them or has few.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sdm.solvers_jax.belief_model import Units, inadmissible
from sdm.solvers_jax.certificate import Certificate, certificate_of
from sdm.tasks.admissible import mask_of
from sdm.tasks.models import POMDP
from sdm.tasks.transitions import SparseTransition

SPARSE = 0.25  # fraction of possible next states below which lists are faster
SMALL = 32  # states below which dense arrays are always faster
SETTLED = 1e-4  # change of a bound, relative to the rewards, at which iteration stops
SWEEPS = 100  # most iterations of the informed bound without a horizon


@dataclass(frozen=True)
class SearchModel:
    """Arrays of one task with standardised rewards, in double precision.

    Attributes:
        moves: P(s' | s, a) of each action, a dense or a CSR array.
        shown: Z(o | s', a) of each action.
        reward: standardised rewards r(s, a).
        root: beliefs before the first action, one for each first symbol.
        mass: probability of each first symbol.
        discount: factor per stage.
        units: scaling of the rewards.
        proof: conversion of standardised values to rewards.

    """

    moves: tuple[np.ndarray | sparse.csr_array, ...]
    shown: Float[np.ndarray, "A S O"]
    reward: Float[np.ndarray, "S A"]
    root: Float[np.ndarray, "I S"]
    mass: Float[np.ndarray, " I"]
    discount: float
    units: Units
    proof: Certificate

    @cached_property
    def lists(
        self,
    ) -> tuple[Int[np.ndarray, "A S N"], Float[np.ndarray, "A S N"]] | None:
        """Next states of each action and state with their probabilities, padded.

        None for dense transitions.
        """
        moves = [move for move in self.moves if not isinstance(move, np.ndarray)]
        if not moves:
            return None
        counts = [np.diff(move.indptr) for move in moves]
        most = max(1, max(int(count.max()) for count in counts))
        states = len(self.reward)
        index = np.zeros((len(moves), states, most), np.int64)
        chance = np.zeros(index.shape)
        for a, (move, count) in enumerate(zip(moves, counts, strict=True)):
            inside = np.arange(most) < count[:, None]
            index[a][inside], chance[a][inside] = move.indices, move.data
        return index, chance

    def predicted(
        self, states: Int[np.ndarray, " k"], belief: Float[np.ndarray, " k"], a: int
    ) -> Float[np.ndarray, " S"]:
        """Return the distribution of the next state; `belief` is that of `states`."""
        if self.lists is None:
            return belief @ self.moves[a][states]
        index, chance = (x[a, states] for x in self.lists)
        weight = belief[:, None] * chance
        size = len(self.reward)
        return np.bincount(index.ravel(), weight.ravel(), minlength=size)

    def expected(self, a: int, value: np.ndarray) -> np.ndarray:
        """Return the expected value of the next state after action `a`."""
        return np.asarray(self.moves[a] @ value)

    def informed(self, known: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
        """Return one backup of the fast informed bound (Hauskrecht, 2000, eq. 31)."""
        backed = np.empty_like(known)
        states, actions = known.shape
        for a, shown in enumerate(self.shown):
            seen = (shown[:, :, None] * known[:, None, :]).reshape(states, -1)
            after = self.expected(a, seen).reshape(states, -1, actions)
            backed[:, a] = after.max(-1).sum(-1)
        return self.reward + self.discount * backed

    def blind(self, value: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
        """Return one backup of the values of policies that repeat one action."""
        after = [self.expected(a, x) for a, x in enumerate(value.T)]
        return self.reward + self.discount * np.stack(after, axis=1)

    def stages(
        self, horizon: int
    ) -> list[tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]]]:
        """Return the informed bound and the blind policies with 0, …, T stages left."""
        found = [(np.zeros_like(self.reward), np.zeros_like(self.reward))]
        for _ in range(horizon):
            known, value = found[-1]
            found.append((self.informed(known), self.blind(value)))
        return found

    def forever(
        self, enough: Callable[[], bool]
    ) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]]:
        """Return the informed bound and the blind policies without a horizon.

        The informed bound is improved until `enough()`.

        Each is a bound whenever the iteration stops: the change of the last backup
        bounds the changes of all further ones (MacQueen, 1966).
        """
        small, ahead = SETTLED, self.discount / (1 - self.discount)
        known = value = self.reward
        while True:
            backed = self._observed(known)
            change = (backed - known).max()
            known = backed
            if np.abs(change) * ahead <= small:
                break
        known = known + ahead * max(change, 0)
        for _ in range(SWEEPS):
            backed = np.minimum(known, self.informed(known))
            change = (known - backed).max()
            known = backed
            if change * ahead <= small or enough():
                break
        while True:
            backed = self.blind(value)
            change = (backed - value).min(0)
            value = backed
            if (
                np.abs(change) * ahead <= small * np.maximum(1, np.abs(value).max())
            ).all():
                break
        return known, value + ahead * np.minimum(change, 0)

    def _observed(self, known: Float[np.ndarray, "S A"]) -> Float[np.ndarray, "S A"]:
        """Return one backup of the values with observed states."""
        best = known.max(1)
        after = [self.expected(a, best) for a in range(len(self.moves))]
        return self.reward + self.discount * np.stack(after, axis=1)


def search_model(model: POMDP, horizon: int | None) -> SearchModel:
    """Convert one checked task; without a horizon if `horizon` is None.

    Rewards are measured from the value per stage with observed states, in units of
    their range, as in `belief_model.standardise`.
    """
    reward = np.asarray(model.reward, np.float64)
    mask = mask_of(model)
    allowed = np.ones_like(reward, bool) if mask is None else np.asarray(mask)
    shown = np.asarray(model.observation, np.float64)
    moves, discount = _moves(model.transition), float(model.discount)
    root, mass = _roots(model)
    if horizon is None:
        stages = annuity = 1 / (1 - discount)
    else:
        stages, annuity = float(horizon), float((discount ** np.arange(horizon)).sum())
    low, high = float(reward[allowed].min()), float(reward[allowed].max())
    centre, scale = 0.0, max(abs(low), abs(high))
    unit = float(np.finfo(np.asarray(model.reward).dtype).eps)
    length = reward.shape[0] + shown.shape[-1]
    if _lost_mass(moves, shown, mass) <= length * unit:
        paid = np.where(allowed, reward, -np.inf)
        value = _observed_value(moves, paid, discount, math.ceil(stages))
        centre = float(np.clip(mass @ (root @ value) / annuity, low, high))
        scale = high - low
    scale = scale if scale > 0 else 1.0
    standard = (reward - centre) / scale
    standard[~allowed] = -inadmissible(np.float64)
    units = Units(jnp.asarray([centre]), jnp.asarray([scale]))
    proof = certificate_of(
        standard[None],
        units,
        stages=stages,
        annuity=np.array([annuity]),
        length=length,
        unit=unit,
    )
    return SearchModel(moves, shown, standard, root, mass, discount, units, proof)


def _lost_mass(
    moves: tuple[np.ndarray | sparse.csr_array, ...],
    shown: Float[np.ndarray, "A S O"],
    mass: Float[np.ndarray, " I"],
) -> float:
    """Return the largest deviation from 1 of the sum of a row of probabilities."""
    lost = [np.abs(np.asarray(move.sum(1)) - 1).max() for move in moves]
    return float(max(*lost, np.abs(shown.sum(-1) - 1).max(), abs(mass.sum() - 1)))


def _moves(transition: object) -> tuple[np.ndarray | sparse.csr_array, ...]:
    """Return the transition of each action, sparse if it has few next states."""
    if isinstance(transition, SparseTransition):
        index, chance = (
            np.asarray(x) for x in (transition.successors, transition.probabilities)
        )
        states, actions, count = chance.shape
        start = np.arange(states + 1) * count
        found = [
            sparse.csr_array(
                (
                    chance[:, a].astype(np.float64).ravel(),
                    index[:, a].ravel(),
                    start.copy(),
                ),
                (states, states),
            )
            for a in range(actions)
        ]
        for move in found:
            move.eliminate_zeros()
        return tuple(found)
    every = np.moveaxis(np.asarray(transition, np.float64), 1, 0)
    if len(every[0]) <= SMALL or np.count_nonzero(every) > SPARSE * every.size:
        return tuple(np.ascontiguousarray(x) for x in every)
    return tuple(sparse.csr_array(x) for x in every)


def _roots(model: POMDP) -> tuple[np.ndarray, np.ndarray]:
    """Return the beliefs after each first symbol of positive probability."""
    initial = np.asarray(model.initial, np.float64)
    if model.initial_observation is None:
        return initial[None], np.ones(1)
    joint = (initial[:, None] * np.asarray(model.initial_observation, np.float64)).T
    mass = joint.sum(1)
    seen = mass > 0
    return joint[seen] / mass[seen, None], mass[seen]


def _observed_value(
    moves: tuple[np.ndarray | sparse.csr_array, ...],
    reward: Float[np.ndarray, "S A"],
    discount: float,
    stages: int,
) -> Float[np.ndarray, " S"]:
    """Return the values of `stages` decisions with observed states."""
    value = np.zeros(len(reward))
    for _ in range(stages):
        after = np.stack([np.asarray(move @ value) for move in moves], axis=1)
        value = (reward + discount * after).max(1)
    return value
