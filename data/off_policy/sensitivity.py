r"""Bounds on a policy's value if one logged decision was confounded.

The behavior policy may have used, at one decision k, what the logs do not have: a
confounder u that changes the odds of an action against the others by a factor of at
most Λ (Namkoong, Keramati, Yadlowsky, Brunskill 2020, Assumption D). All other
decisions depend on the logs only. Let Y(a) be the return to go from k after action a,
with later decisions by the policy. Among the episodes where a was not taken, Y(a) is
never seen, and has at least the mean

    κ_Λ(s, a) = min { Σ_j p_j L_j y_j / Σ_j p_j L_j :  1 ≤ L_j ≤ Λ }

over the episodes j where it was, with p_j their importance weight after k. The least is
attained with L = Λ for the smallest y and L = 1 for the others. The lower bound on the
value is

    Σ_{t<k} γ^t E_w[r_t] + γ^k E_w[ Σ_a π(a|h) ( b(a|s) E_p[Y|s,a] + (1 − b(a|s)) κ ) ]

with the normalised weights w of the decisions before k, and the frequencies b(a|s) at
stage k. The upper bound is that of −Y, negated. With Λ = 1, both are the estimate under
no confounding, apart from unsupported actions.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from sdm.data.off_policy.cells import averaged, stage_cells
from sdm.data.off_policy.sample import Sample


@dataclass(frozen=True)
class _Outcomes:
    """Returns to go from the confounded decision, sorted by group, then size.

    Attributes:
        episode: episode of each return.
        chance: its importance weight after the decision.
        size: the return, negated for upper bounds.
        start: index of each group's first return.
        group: groups that have a return.

    """

    episode: Int[np.ndarray, " n"]
    chance: Float[np.ndarray, " n"]
    size: Float[np.ndarray, " n"]
    start: Int[np.ndarray, " m"]
    group: Int[np.ndarray, " m"]


class ConfoundedStage:
    """Bounds on a policy's value if the decision of one stage was confounded."""

    def __init__(self, sample: Sample, stage: int) -> None:
        """Group the logged decisions of the stage.

        Raises:
            ValueError: if the logs have no such stage.

        """
        if not 0 <= stage < sample.logs.horizon:
            raise ValueError(
                f"confounded_stage = {stage}: must be from 0 to "
                f"{sample.logs.horizon - 1}, a stage of the logs"
            )
        self.sample = sample
        self.stage = stage
        self.alive, self.cells = stage_cells(sample, stage)
        self.policy = sample.policy[self.alive, stage]
        self._outcomes = {sign: self._sorted(sign) for sign in (1, -1)}

    @cached_property
    def effective(self) -> float:
        """Return the effective episodes per group, (Σ_j p_j)² / Σ_j p_j².

        It is the mean over groups by their probability under the policy, with the
        logged episodes before the decision.
        """
        size, share = self._groups
        return float(share @ size / share.sum()) if share.any() else 0.0

    @cached_property
    def least(self) -> float:
        """Return the effective episodes of the smallest group that the policy takes."""
        size, share = self._groups
        return float(size[share > 0].min(initial=np.inf)) if share.any() else 0.0

    @cached_property
    def _groups(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Return the effective episodes of each group, and its share."""
        chance = self.sample.ratio[self.alive, self.stage + 1 :].prod(1)
        total, square = (self.cells.by_cell @ x for x in (chance, chance**2))
        size = np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)
        before = self.sample.before[self.alive, self.stage]
        share = self.cells.chances(self.cells.state, self.policy).T @ before
        return size, share

    def bound(
        self, factor: float, sign: int, weights: Float[np.ndarray, "R N"]
    ) -> Float[np.ndarray, " R"]:
        """Return the lower (`sign` 1) or upper (-1) bound for weights of the episodes.

        Args:
            factor: Λ, at least 1.
            sign: 1 for the lower bound, -1 for the upper one.
            weights: positive weights of the episodes.

        """
        used = np.ascontiguousarray(weights.T)
        before, left, reached = self._before(sign, used)
        inside = self._inside(factor, sign, used)
        power = self.sample.powers[self.stage]
        return sign * (before + power * left * (reached * inside).sum(0))

    def _before(
        self, sign: int, used: Float[np.ndarray, "N R"]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return earlier rewards, the supported share, and each decision's weight."""
        sample, left, total = self.sample, np.ones(used.shape[1]), 0.0
        reached = used / used.sum(0)
        for t in range(self.stage):
            lost, power = sample.unsupported[:, t], sample.powers[t]
            worst = sign * self._extreme(sign)[:, t] * lost
            total = total + power * left * (worst @ reached)
            left = left * (1 - lost @ reached)
            reached = used * sample.weight[:, t, None]
            every = reached.sum(0)
            reached = np.divide(reached, every, out=used / used.sum(0), where=every > 0)
            total = total + power * left * (sign * sample.logs.reward[:, t] @ reached)
        return np.asarray(total), left, reached[self.alive]

    def _extreme(self, sign: int) -> Float[np.ndarray, "N T"]:
        """Return the worst possible returns to go."""
        ranges = self.sample.ranges
        return ranges.floor if sign > 0 else ranges.ceiling

    def _inside(
        self, factor: float, sign: int, used: Float[np.ndarray, "N R"]
    ) -> Float[np.ndarray, "n R"]:
        """Return the worst mean return to go from the decision, in every episode."""
        cells, own = self.cells, used[self.alive]
        one = np.ones_like(own)
        groups = cells.by_cell @ own
        state, _ = np.nonzero(cells.table >= 0)
        share = groups / (cells.by_state @ own)[state]
        mean, least = self._means(factor, sign, used)
        value = share * mean + (1 - share) * least
        # Groups whose weights are all 0 have no return of the policy.
        worst = sign * self._extreme(sign)[self.alive, self.stage][:, None] * one
        lowest = averaged(cells.by_cell, worst, own, 0.0)
        value = np.where(np.isnan(value), lowest, value)
        lacking = np.where(cells.table[cells.state] < 0, self.policy, 0.0).sum(-1)
        found: np.ndarray = cells.chances(cells.state, self.policy) @ value
        return found + lacking[:, None] * worst

    def _means(
        self, factor: float, sign: int, used: Float[np.ndarray, "N R"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the worst mean of every group; NaN without weight."""
        kept = self._outcomes[sign]
        weight = kept.chance[:, None] * used[kept.episode]
        size = kept.size[:, None]
        total, paid = (
            np.add.reduceat(x, kept.start, axis=0) for x in (weight, weight * size)
        )
        count = np.diff(np.append(kept.start, len(kept.size)))
        extra, more = (
            np.cumsum(x, axis=0) - _before_groups(x, kept.start, count)
            for x in (weight, weight * size)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = paid / total
            tilted = (factor - 1) * more + np.repeat(paid, count, axis=0)
            tilted /= (factor - 1) * extra + np.repeat(total, count, axis=0)
            least = np.fmin(mean, np.fmin.reduceat(tilted, kept.start, axis=0))
        full = np.full((2, self.cells.count, used.shape[1]), np.nan)
        full[0, kept.group], full[1, kept.group] = mean, least
        return full[0], full[1]

    def _sorted(self, sign: int) -> _Outcomes:
        """Return the returns to go, with those of unsupported later actions."""
        sample, k = self.sample, self.stage
        paid = sample.logs.reward[self.alive, k:]
        powers = sample.discount ** np.arange(paid.shape[1])
        earned = np.cumsum(paid * powers, -1)
        later = np.cumprod(sample.ratio[self.alive, k + 1 :], -1)
        later = np.concatenate([np.ones((len(self.alive), 1)), later], -1)
        lost = sample.unsupported[self.alive, k + 1 :] * later[:, :-1]
        row, step = np.nonzero(lost)
        worst = self._extreme(sign)[self.alive, k + 1 :][row, step]
        where = np.concatenate([np.arange(len(self.alive)), row])
        chance = np.concatenate([later[:, -1], lost[row, step]])
        size = np.concatenate(
            [earned[:, -1], earned[row, step] + powers[step + 1] * worst]
        )
        cell = self.cells.cell[where]
        order = np.lexsort((sign * size, cell))
        group, start = np.unique(cell[order], return_index=True)
        return _Outcomes(
            self.alive[where][order], chance[order], sign * size[order], start, group
        )


def _before_groups(
    numbers: Float[np.ndarray, "n R"],
    start: Int[np.ndarray, " m"],
    count: Int[np.ndarray, " m"],
) -> Float[np.ndarray, "n R"]:
    """Return the sum of the numbers in earlier groups, for each number."""
    sums = np.cumsum(np.add.reduceat(numbers, start, axis=0), axis=0)
    earlier = np.concatenate([np.zeros((1, numbers.shape[1])), sums[:-1]])
    return np.repeat(earlier, count, axis=0)
