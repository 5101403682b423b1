r"""Plan in one of K fully observed candidate models, without knowing which.

This is the exact Bayes-adaptive problem over K candidates (Duff, 2002; Poupart,
Vlassis, Hoey, Regan, 2006): the observed state x changes, the hidden candidate k does
not, and Bayes' rule updates the belief w over candidates after every transition and, if
rewards are observed, every reward. On unnormalised beliefs, with g a set of candidates
with equal rewards for (x, a) (all candidates if rewards are not observed):

    V_t(x, w) = max_a [ Σ_k w_k r_k(x,a) + γ Σ_{x',g} V_{t+1}(x', w ∘ P_k(x'|x,a) 1_g) ]

V is convex in w. **Lower bound**: α-vectors over candidates for each stage and observed
state, from each candidate's optimal plan and from backups at sampled beliefs (Pineau,
Gordon, Thrun, 2003). The policy that follows the best α-vector attains at least its
value. **Upper bound**: the full-information value Σ_k w_k V*_k(x) and the QMDP value
max_a Σ_k w_k Q*_k(x,a), tightened by backups at the same beliefs with sawtooth
interpolation (Hauskrecht, 2000); at a belief that is certain of a candidate, the bound
is exactly V*_k.

All tasks of a batch share the candidates and differ only in their first beliefs, so
they also share beliefs and α-vectors. Sampled beliefs are those that the tasks reach by
the greedy actions of the lower and the upper bound, with priority to a large product of
reach probability and gap.

Selections (of an α-vector, of a sawtooth point) use single precision; the selected
entry is evaluated in the precision of the models. The bounds are therefore always valid
and only slightly wider.
"""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sdm.solvers_jax.certificate import relative_gap
from sdm.solvers_jax.hidden_backup import (
    Candidates,
    Stage,
    after_the_last,
    backup,
    candidates_of,
    gap_at,
)
from sdm.storage.checks import check_tolerance
from sdm.tasks.models import MDP, check_count
from sdm.tasks.stages import check_stationary

ROUNDS = 3  # with a quarter, half and all of the beliefs
SAME_BELIEF = 1e-9  # beliefs with closer random projections are merged
COMPARED = 4  # candidates whose gap is computed, per belief that can be added

# Observed states, beliefs and reach probabilities, one per row.
Rows = tuple[Int[np.ndarray, " R"], Float[np.ndarray, "R K"], Float[np.ndarray, " R"]]


class HiddenModelPlan(eqx.Module):
    """A policy for every task, with certified bounds on the optimal value.

    Attributes:
        lower: certified lower bound on the policy's expected discounted return, over
            candidates drawn from the task's first belief.
        upper: certified upper bound on the expected discounted return of all policies.
        vector: α-vectors of stages 1 to T - 1.
        choice: the first action of each plan.
        first: action at stage 0 in each observed state.

    """

    lower: Float[Array, " B"]
    upper: Float[Array, " B"]
    vector: Float[Array, "U S V K"]
    choice: Int[Array, "U S V"]
    first: Int[Array, "B S"]

    @property
    def value(self) -> Float[Array, " B"]:
        """Guaranteed expected discounted return of the policy."""
        return self.lower

    def action(
        self, t: int | Int[Array, ""], x: Int[Array, "B E"], w: Float[Array, "B E K"]
    ) -> Int[Array, "B E"]:
        """Return the actions at stage `t` for observed states and beliefs."""
        return self._action(jnp.asarray(t), x, w)

    @eqx.filter_jit
    def _action(
        self, t: Int[Array, ""], x: Int[Array, "B E"], w: Float[Array, "B E K"]
    ) -> Int[Array, "B E"]:
        opening = jnp.take_along_axis(self.first, x, axis=1)
        if not len(self.vector):
            return opening
        before = jnp.maximum(t - 1, 0)
        vector, choice = self.vector[before], self.choice[before]

        def of_task(each: tuple[Array, Array]) -> Array:
            state, belief = each
            score = jnp.einsum("evk,ek->ev", vector[state], belief)
            return choice[state, score.argmax(-1)]

        # Task by task: the α-vectors of all episodes would not fit in memory.
        later = jax.lax.map(of_task, (x, w))
        return jnp.where(t == 0, opening, later)


class _Beliefs:
    """Beliefs of one stage, on the host; the first `filled` of each state are valid."""

    def __init__(self, mean: np.ndarray, states: int, points: int) -> None:
        self.point = np.tile(mean, (states, points, 1))
        self.reach = np.zeros((states, points))
        self.filled = np.zeros(states, int)

    def new(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable new beliefs of each state, and their probability."""
        states, points, size = self.point.shape
        belief = np.tile(self.point[:, :1], (1, COMPARED * points, 1))
        chance = np.zeros(belief.shape[:2])
        project = np.cos(np.arange(1, size + 1) ** 2)
        for x in range(states):
            mine = rows[0] == x
            mark, at = rows[1][mine] @ project, np.flatnonzero(mine)
            order = np.argsort(mark, kind="stable")
            mark, at = mark[order], at[order]
            head = np.flatnonzero(np.diff(mark, prepend=-np.inf) > SAME_BELIEF)
            if not len(head):
                continue
            total = np.add.reduceat(rows[2][at], head)
            known = self.point[x, : self.filled[x]] @ project
            for i, n in np.argwhere(abs(mark[head, None] - known) <= SAME_BELIEF):
                self.reach[x, n], total[i] = max(total[i], self.reach[x, n]), 0
            top = np.argsort(-total, kind="stable")[: belief.shape[1]]
            belief[x, : len(top)] = rows[1][at[head[top]]]
            chance[x, : len(top)] = total[top]
        return belief, chance

    def add(
        self, belief: np.ndarray, chance: np.ndarray, want: np.ndarray, limit: int
    ) -> None:
        """Add the beliefs with the highest priority, up to `limit` in each state."""
        for x, filled in enumerate(self.filled):
            top = np.argsort(-want[x], kind="stable")[: max(0, limit - filled)]
            top = top[want[x, top] > 0]
            end = filled + len(top)
            self.point[x, filled:end] = belief[x, top]
            self.reach[x, filled:end] = chance[x, top]
            self.point[x, end:], self.filled[x] = self.point[x, 0], end


def _reached(
    model: Candidates,
    belief: Float[np.ndarray, "S N K"],
    reach: Float[np.ndarray, "S N"],
    action: Int[np.ndarray, "S N"],
) -> Rows:
    """Return the states and beliefs that actions reach, with their probability."""
    parts = []
    for x in range(len(belief)):
        live = np.flatnonzero(reach[x] > 0)
        taken = model.moves[x, action[x, live]]  # [n, D]
        joint = belief[x, live, None] * model.chance[taken]
        mass = joint.sum(-1)
        some = mass > 0
        chance = reach[x, live, None] * mass
        rows = joint[some] / mass[some][:, None]
        parts.append((model.target[taken][some], rows, chance[some]))
    state, rows, chance = (np.concatenate(each) for each in zip(*parts, strict=True))
    return state, rows, chance


class _Search:
    """Beliefs and bounds of every stage, refined round by round."""

    def __init__(
        self, model: Candidates, weight: np.ndarray, points: int, horizon: int
    ) -> None:
        self.model, self.points = model, points
        self.host: Candidates = jax.tree.map(np.asarray, model)
        joint = weight[:, None] * self.host.initial  # [B, S, K]
        self.mass = joint.sum(-1).T
        some = joint.sum(-1, keepdims=True) > 0
        root = np.where(
            some, joint / np.where(some, joint.sum(-1, keepdims=True), 1), 0
        )
        mean, states = weight.mean(0), len(self.host.initial)
        self.beliefs = [_Beliefs(mean, states, points) for _ in range(horizon)]
        # Stage 0 has one belief for each task.
        first = self.beliefs[0]
        first.point = np.swapaxes(np.where(some, root, weight[:, None]), 0, 1)
        first.reach, first.filled = (
            self.mass / len(weight),
            np.full(states, len(weight)),
        )
        self.stages: list[Stage] = []
        self.swept = [np.zeros(states, int)] * horizon  # points in `stages`

    def expand(self, limit: int) -> None:
        """Add beliefs that greedy actions reach, up to `limit` in each state."""
        for t, (here, there) in enumerate(pairwise(self.beliefs)):
            # Use QMDP's action at points without a backup.
            guess = np.einsum("snk,sak->sna", here.point, self.host.q[t]).argmax(-1)
            plans = [guess]
            if self.stages:
                known = np.arange(guess.shape[1]) < self.swept[t][:, None]
                found = (self.stages[t].hopeful, self.stages[t].choice)
                plans = [np.where(known, a[:, : guess.shape[1]], guess) for a in found]
            rows = [_reached(self.host, here.point, here.reach, a) for a in plans]
            state, row, chance = (np.concatenate(x) for x in zip(*rows, strict=True))
            belief, chance = there.new((state, row, chance))
            want = chance
            if self.stages:
                now, stage = jnp.asarray(t + 1), self.stages[t + 1]
                gap = gap_at(self.model, now, jnp.asarray(belief), stage)
                want = chance * np.maximum(gap, 0)
            there.add(belief, chance, want, limit)

    def sweep(self) -> None:
        """Back up every stage, the last first."""
        after = after_the_last(self.model, self.points)
        later: list[Stage] = []
        for t in reversed(range(1, len(self.beliefs))):
            point = jnp.asarray(self.beliefs[t].point)
            after = backup(self.model, jnp.asarray(t), point, after)
            later.insert(0, after)
        root = self.beliefs[0].point
        tasks, parts = root.shape[1], []
        for first in range(0, tasks, self.points):  # equal shapes, to compile once
            chosen = np.minimum(first + np.arange(self.points), tasks - 1)
            part = backup(
                self.model, jnp.asarray(0), jnp.asarray(root[:, chosen]), after
            )
            parts.append([x[:, : self.points] for x in part])  # drop the shared plans
        stage = (
            jnp.concatenate(x, axis=1)[:, :tasks] for x in zip(*parts, strict=True)
        )
        self.stages = [Stage(*stage), *later]
        self.swept = [each.filled.copy() for each in self.beliefs]

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper bounds on the value of each task."""
        first = self.stages[0]
        low = np.asarray((first.vector * first.point).sum(-1))
        # Widen the bounds by the rounding error of the sums, so that they hold.
        size, horizon = first.point.shape[-1], len(self.beliefs)
        terms = size + self.host.moves.shape[-1]
        unit = np.finfo(low.dtype).eps
        slack = unit * terms * horizon**2 * np.abs(self.host.reward).max()
        lower, upper = ((self.mass * x).sum(0) for x in (low, np.asarray(first.upper)))
        return lower - slack, upper + slack


def solve_hidden_model(
    models: MDP,
    weight: Float[np.ndarray, "B K"] | Float[Array, "B K"],
    *,
    horizon: int,
    rewards: bool = False,
    points: int = 32,
    gap: float = 1e-3,
) -> HiddenModelPlan:
    """Plan for every task's first belief over shared candidates.

    Args:
        models: the K candidates on one leading axis; not validated.
        weight: probability of each candidate in each task, before the first state is
            observed.
        horizon: number of decisions T.
        rewards: whether the agent observes its rewards.
        points: largest number of beliefs per stage and observed state; the first rounds
            use a quarter and half of them.
        gap: largest upper - lower, relative to the larger of the two in absolute value.

    Raises:
        ValueError: if `points` or `gap` is invalid, or an array depends on the stage.

    """
    check_stationary(models, "`solve_hidden_model`")
    check_count("points", points, 1)
    check_tolerance("gap", gap)
    model = candidates_of(models, horizon=horizon, rewards=rewards)
    search = _Search(model, np.asarray(weight), points, horizon)
    for rest in reversed(range(ROUNDS)):
        search.expand(max(1, points >> rest))
        search.sweep()
        lower, upper = search.values()
        if (relative_gap(lower, upper) <= gap).all():
            break
    first, *later = search.stages
    # A single decision has no later stages: use an empty axis.
    parts = later or [jax.tree.map(lambda x: x[None][:0], first)]
    join = jnp.stack if later else jnp.concatenate
    return HiddenModelPlan(
        lower=jnp.asarray(lower),
        upper=jnp.asarray(upper),
        vector=join([each.vector for each in parts]),
        choice=join([each.choice for each in parts]),
        first=first.choice.T,
    )
