"""Solve one large or long POMDP by depth-first search, with or without a horizon.

The search works on the beliefs that matter most for the bounds of the initial one, so
it suits one large model, while `PointBased` suits many small ones. It reports bounds as
it goes, and can be stopped at any time with the best answer so far. See `search_tree`
for the method and its sources, and `search_bounds` for the bounds.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from sdm.solvers_jax.certificate import close
from sdm.solvers_jax.methods import register_method
from sdm.solvers_jax.search_model import SearchModel, search_model
from sdm.solvers_jax.search_solution import Found, SearchSolution, search_solution
from sdm.solvers_jax.search_tree import Tree
from sdm.storage.checks import check_positive, check_tolerance
from sdm.tasks.models import POMDP, batch_shape
from sdm.tasks.stages import stages_of
from sdm.tasks.transitions import take_tasks

# Widths of the gap at which trials end, as shares of the present gap: shallow trials
# improve upper bounds, deep ones lower bounds. A further kind of trial plays the best
# plan, which improves lower bounds most. Each kind has the same time.
SHARES = (0.9, 0.6, 0.3, 0.05)
AIM = 0.9  # smallest width, as a share of the gap to reach
LARGE = 4_000  # triples of a state, an action and a symbol of a large task
REPORT = 0.2  # seconds between reports of progress
NARROWER = 0.98  # the gap, as a share of the last one in the history, of a new entry

Progress = Callable[[float, float, float], None]


@register_method
@dataclass(frozen=True)
class DepthFirst:
    """Depth-first search with certified bounds, for one large or long task.

    Without a horizon (`solve(model, horizon=None)`), the task needs a discount below 1,
    and the policy is stationary.

    Attributes:
        gap: certified gap to reach, relative to the larger bound in absolute value.
        atol: certified gap that is always enough, in units of reward.
        seconds: time limit for each task; None for none.
        progress: function of the seconds so far and both bounds, in units of reward,
            called a few times per second; None for none.

    """

    gap: float = 0.01
    atol: float = 1e-9
    seconds: float | None = None
    progress: Progress | None = field(default=None, repr=False, compare=False)

    name: ClassVar[str] = "search"
    handles: ClassVar[tuple[type, ...]] = (POMDP,)
    endless: ClassVar[bool] = True

    @staticmethod
    def suits(model: POMDP) -> bool:
        """Return whether a task is too large for methods that work on all beliefs."""
        return stages_of(model) is None and model.observation.size > LARGE

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid gap or time limit."""
        for name in ("gap", "atol"):
            check_tolerance(name, getattr(self, name))
        if self.seconds is not None:
            check_positive("seconds", self.seconds)

    def solve(self, model: POMDP, *, horizon: int | None) -> SearchSolution:
        """Search in each task of the batch until its gap is small or its time is over.

        An interrupt from the keyboard ends the search like the time limit, in all
        remaining tasks.

        Args:
            model: a task or a batch of tasks; validated by `solve`.
            horizon: number of decisions T; None for no end.

        Raises:
            ValueError: if there is no horizon and the discount is 1, or no policy
                avoids actions that are not admissible.

        """
        batch, clock = batch_shape(model), _Clock(self.seconds)
        if horizon is None and float(model.discount) >= 1:
            raise ValueError(
                "horizon = None: the discount must be below 1, found "
                f"{float(model.discount):g}; set the number of decisions"
            )
        found = []
        for task in np.ndindex(batch):
            one = search_model(take_tasks(model, task), horizon)
            found.append(self._search(one, horizon, clock))
        return search_solution(found, batch, horizon)

    def _search(
        self, model: SearchModel, horizon: int | None, clock: "_Clock"
    ) -> Found:
        """Return the tree of one task, and its certified bounds."""
        clock.start()
        tree, proof = Tree(model, horizon, enough=clock.early), model.proof
        spent, idle, reported = np.zeros(len(SHARES) + 1), set[int](), 0.0
        history: list[tuple[float, float, float]] = []
        while True:
            lower, upper = tree.bounds
            bounds = proof.bounds(np.array([lower]), np.array([upper]))
            now = (clock.now(), bounds.lower.item(), bounds.upper.item())
            # More points do not narrow a width that is only rounding.
            rounded = proof.scale * (upper - lower) <= bounds.slack
            near = close(bounds.lower, bounds.upper, self.gap, self.atol)
            stuck = idle.issuperset(range(len(SHARES)))
            done = near.all() or rounded.all() or stuck or clock.over()
            if done or not history or now[2] - now[1] < NARROWER * _width(history):
                history.append(now)
            if done:
                return Found(tree, bounds, near, np.array(history))
            # A lower bound of -inf, without admissible plans, has no size.
            aim = self.gap * max(abs(x) for x in now[1:] if np.isfinite(x))
            aim = AIM * max(aim, self.atol) / proof.scale.item()
            turn, changes = int(spent.argmin()), tree.changes
            try:
                if self.progress is not None and now[0] >= reported:
                    self.progress(*now)
                    reported = now[0] + REPORT
                if play := turn == len(SHARES):
                    width = aim
                else:
                    width = max(SHARES[turn] * (upper - lower), aim)
                tree.trial(width, clock.over, play=play)
            except KeyboardInterrupt:
                clock.stopped = True
                warnings.warn(
                    f"the search was interrupted after {clock.now():.1f} s: the bounds "
                    "and the policy are those found until then",
                    stacklevel=2,
                )
            spent[turn] += clock.now() - now[0]
            idle = set() if tree.changes > changes else idle | {turn}


def _width(history: list[tuple[float, float, float]]) -> float:
    """Return the gap of the last entry."""
    return history[-1][2] - history[-1][1]


class _Clock:
    """Time limit of a task, and whether the user stopped the search."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.stopped, self.begin = seconds, False, 0.0

    def start(self) -> None:
        self.begin = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self.begin

    def over(self) -> bool:
        late = self.seconds is not None and self.now() >= self.seconds
        return self.stopped or late

    def early(self) -> bool:
        """Return whether a fifth of the time has passed, enough for first bounds."""
        return self.seconds is not None and self.now() >= self.seconds / 5
