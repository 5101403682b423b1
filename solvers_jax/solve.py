"""`solve`: check a model once, then hand it to the solver of its kind."""

from typing import Any, overload

from sdm.solvers_jax.apomdp import APOMDPSolution, solve_apomdp
from sdm.solvers_jax.backward_induction import MDPSolution, backward_induction
from sdm.solvers_jax.pomdp import POMDPSolution, solve_pomdp
from sdm.solvers_jax.robust_mdp import robust_backward_induction
from sdm.tasks.models import (
    APOMDP,
    MDP,
    POMDP,
    RobustMDP,
    check_horizon,
    check_model,
)


@overload
def solve(model: MDP | RobustMDP, *, horizon: int) -> MDPSolution: ...
@overload
def solve(
    model: POMDP,
    *,
    horizon: int,
    gap: float = ...,
    points: int = ...,
    method: str = ...,
) -> POMDPSolution: ...
@overload
def solve(
    model: APOMDP, *, horizon: int, points: int | None = ...
) -> APOMDPSolution: ...


def solve(
    model: MDP | RobustMDP | POMDP | APOMDP, *, horizon: int, **options: Any
) -> MDPSolution | POMDPSolution | APOMDPSolution:
    """Value and policy of every task in a batch.

    Args:
        model: an `MDP`, a `RobustMDP`, a `POMDP` or an `APOMDP`, single or with leading
            batch axes.
        horizon: number of decisions T, at least 1.
        **options: of the solver: `gap`, `points` and `method` for a POMDP, see
            `solve_pomdp`; `points` for an APOMDP, see `solve_apomdp`; none for others.

    Returns:
        The solution: `value`, bounds or an error on it, and `action(t, x)`.

    Raises:
        ValueError: if the model is not well posed; names the field, index and number.
        TypeError: if there is no solver for this type of model, or no such option.

    """
    check_horizon(horizon)
    if not isinstance(model, MDP | RobustMDP | POMDP | APOMDP):
        kinds, kind = "an MDP, a RobustMDP, a POMDP or an APOMDP", type(model).__name__
        raise TypeError(f"solve takes {kinds}, not {kind}")
    check_model(model)
    if isinstance(model, MDP):
        return backward_induction(model, horizon=horizon, **options)
    if isinstance(model, RobustMDP):
        return robust_backward_induction(model, horizon=horizon, **options)
    if isinstance(model, POMDP):
        return solve_pomdp(model, horizon=horizon, **options)
    return solve_apomdp(model, horizon=horizon, **options)
