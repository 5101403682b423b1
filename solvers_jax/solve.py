"""`solve`: check a model once, then hand it to the solver of its kind."""

from sdm.solvers_jax.backward_induction import MDPSolution, backward_induction
from sdm.solvers_jax.models import MDP, check_horizon, check_model


def solve(model: MDP, *, horizon: int) -> MDPSolution:
    """Optimal values and policy of every task in a batch.

    Args:
        model: an `MDP`, single or with leading batch axes.
        horizon: number of decisions T, at least 1.

    Returns:
        The solution: `value`, certified `lower` and `upper` bounds on it, and
        `action(t, x)`.

    Raises:
        ValueError: if the model is not well posed; names the field, index and number.
        TypeError: if there is no solver for this type of model.

    """
    if not isinstance(model, MDP):
        raise TypeError(f"solve takes an MDP, not {type(model).__name__}")
    check_horizon(horizon)
    check_model(model)
    return backward_induction(model, horizon=horizon)
