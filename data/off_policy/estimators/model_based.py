r"""Value in a model with the same transitions at every stage, from counts.

    Q_t(s, a) = mean over all decisions (s, a) of r + γ V_{t+1}(s')
    V_t(s)    = Σ_a π_t(a | s) Q_t(s, a),   V = 0 after the end and after stage T − 1

It pools the stages, which `fqe` keeps apart, so that it needs fewer episodes, and errs
if transitions change between stages or the observation is not the state. Unsupported
actions have the mean value of the logged actions in their state (of all decisions, if
there is none); in the bounds, the smallest or largest possible return to go.

Decisions whose next observation was not logged are left out, unless they end an
episode. An episode of T decisions ends with the horizon, which says nothing of other
stages: its last decision counts as an end only if its next observation never has an
action.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sdm.data.logs import NOTHING
from sdm.data.off_policy.cells import Cells, averaged, indicator
from sdm.data.off_policy.estimator import (
    Diagnosis,
    Estimate,
    Values,
    register_estimator,
)
from sdm.data.off_policy.sample import Sample


@dataclass(frozen=True)
class _Moves:
    """All decisions with a known successor, and distinct moves (s, a, s') among them.

    Attributes:
        cells: groups of the decisions.
        after: next observation of each decision; `NOTHING` at the end of an episode.
        start: group of each distinct move.
        end: next observation of each distinct move.
        times: how often each episode made each distinct move [moves, N].
        paid: what each group paid in each episode [groups, N].
        chances: the policy's probabilities [S, groups] at each of its stages.
        lacking: its probability of actions without a group, [S] for each.

    """

    cells: Cells
    after: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " m"]
    end: Int[np.ndarray, " m"]
    times: sparse.csr_array
    paid: sparse.csr_array
    chances: list[sparse.csr_array]
    lacking: list[Float[np.ndarray, " S"]]

    def at(self, t: int) -> tuple[sparse.csr_array, Float[np.ndarray, " S"]]:
        """Return `chances` and `lacking` of a stage."""
        t = min(t, len(self.chances) - 1)
        return self.chances[t], self.lacking[t]


@register_estimator
class ModelBased:
    """The policy's value in the estimated model."""

    name = "model"
    title = "estimated model"

    def refuse(self, sample: Sample) -> str | None:
        """Return a reason for policies with memory, and for logs without successors."""
        if sample.table is None:
            return "the policy has memory"
        if not len(_moves(sample).after):
            return "the logs have no next observations"
        return None

    def prepare(self, sample: Sample) -> Estimate:
        """Return the function from weights of the episodes to estimates."""
        moves, ranges = _moves(sample), sample.ranges
        complete = not any((row > 0).any() for row in moves.lacking)

        def estimate(weights: Float[np.ndarray, "R N"]) -> Values:
            used = np.ascontiguousarray(weights.T)
            value = _value(sample, moves, used, None)
            if complete:
                return Values(value, value, value)
            ends = (ranges.stage_floor, ranges.stage_ceiling)
            return Values(value, *(_value(sample, moves, used, end) for end in ends))

        return estimate

    def diagnose(self, sample: Sample) -> Diagnosis:
        """Return the effective sample size, and the probability without data.

        The size is that of the weights Σ_t P(s_t, a_t) / n(s, a) of all decisions,
        divided by the mean length of an episode.
        """
        moves = _moves(sample)
        first = sample.logs.observation[:, 0]
        state = np.bincount(first, minlength=moves.cells.states) / len(first)
        each = moves.cells.by_cell.sum(1)
        weight, lost = np.zeros(len(moves.after)), 0.0
        goes = moves.after != NOTHING
        for t in range(sample.logs.horizon):
            chances, lacking = moves.at(t)
            lost += float(state @ lacking)
            now = ((chances.T @ state) / each)[moves.cells.cell]
            weight += now
            reached = np.bincount(moves.after[goes], now[goes], moves.cells.states)
            state = reached.astype(np.float64)
        size = weight.sum() ** 2 / (weight**2).sum() if weight.any() else 0.0
        length = len(weight) / sample.logs.episodes
        return Diagnosis(float(size / max(1.0, length)), min(1.0, lost))


def _moves(sample: Sample) -> _Moves:
    """Return the decisions with a known successor."""
    logs, table = sample.logs, sample.table
    assert table is not None
    step, after = np.arange(logs.horizon), logs.observation[:, 1:]
    ends = (step == logs.length[:, None] - 1) & logs.done[:, None]
    acted = np.asarray(sample.supported.any(-1))
    final = ~acted[after] & (after != NOTHING)
    ends = ends & ((step < logs.horizon - 1) | final)
    after = np.where(ends, NOTHING, after)
    episode, t = np.nonzero(sample.acted & (ends | (after != NOTHING)))
    cells = Cells(
        logs.observation[episode, t],
        logs.action[episode, t],
        len(logs.observations),
        len(logs.actions),
    )
    after = after[episode, t]
    key = cells.cell * (cells.states + 1) + after + 1
    _, first, move = np.unique(key, return_index=True, return_inverse=True)
    every, missing = np.arange(cells.states), cells.table < 0
    sizes = ((len(first), logs.episodes), (cells.count, logs.episodes))
    ones, reward = np.ones(len(move)), logs.reward[episode, t]
    return _Moves(
        cells,
        after,
        cells.cell[first],
        after[first],
        sparse.csr_array((ones, (move, episode)), shape=sizes[0]),
        sparse.csr_array((reward, (cells.cell, episode)), shape=sizes[1]),
        [cells.chances(every, row) for row in table],
        [np.where(missing, row, 0.0).sum(-1) for row in table],
    )


def _value(
    sample: Sample,
    moves: _Moves,
    weights: Float[np.ndarray, "N R"],
    to_go: Float[np.ndarray, " T"] | None,
) -> Float[np.ndarray, " R"]:
    """Return the value of each weighting; `to_go` is that of unsupported actions."""
    cells, made = moves.cells, moves.times @ weights
    by_start = indicator(moves.start, cells.count)
    state, _ = np.nonzero(cells.table >= 0)
    by_state = indicator(state, cells.states)
    total = by_start @ made
    chance, reward = made / total[moves.start], (moves.paid @ weights) / total
    later = np.zeros((cells.states + 1, weights.shape[1]))  # the last row is the end
    for t in reversed(range(sample.logs.horizon)):
        chances, lacking = moves.at(t)
        q = reward + sample.discount * (by_start @ (chance * later[moves.end]))
        if to_go is None:
            overall = (total * q).sum(0) / total.sum(0)
            filled = averaged(by_state, q, total, overall)
        else:
            filled = np.full_like(later[:-1], to_go[t])
        later[:-1] = chances @ q + lacking[:, None] * filled
    first = later[sample.logs.observation[:, 0]]
    return (weights * first).sum(0) / weights.sum(0)
