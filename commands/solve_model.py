"""`sdm solve --model FILE`: a user's own model."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.console import say, start_jax

if TYPE_CHECKING:
    from sdm.data.solved_tasks import Solution


def solve_model(
    path: Path,
    horizon: int | None,
    *,
    gap: float,
    points: int | None,
    method: str,
    plot: Path | None,
    given: Mapping[str, str],
) -> dict[str, Any]:
    """Solve one model from a file, report it, and draw it where `plot` says.

    Of the options `given`, those that do nothing for this kind of model are named.
    """
    start_jax()
    import numpy as np

    from sdm.solvers_jax import MDP, POMDP, RobustMDP, solve
    from sdm.solvers_jax.belief_model import belief_model
    from sdm.tasks.model_files import (
        load_with_names,
        long_horizon,
        truncation_error,
    )

    model, states, actions = load_with_names(path)
    if np.ndim(model.reward) != 2:
        raise ValueError(f"`{path}` holds a batch of models: one is solved at a time")
    if method == "exact" and not isinstance(model, POMDP):
        kind = type(model).__name__
        raise ValueError(f"`--method exact` is for a POMDP: `{path}` holds a {kind}")
    used = {"POMDP": ("gap", "points"), "APOMDP": ("points",)}
    for name in ("gap", "points"):
        if name in given and name not in used.get(type(model).__name__, ()):
            kind = type(model).__name__
            say(f"warning: `{given[name]}` has no effect for {kind} models", "yellow")
    try:
        stages = long_horizon(model) if horizon is None else horizon
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}, with `--horizon`") from error
    start = time.perf_counter()
    report: dict[str, Any] = {
        "model": str(path),
        "kind": type(model).__name__,
        "horizon": stages,
    }
    budget = {} if points is None else {"points": points}
    found: Solution
    if isinstance(model, MDP | RobustMDP):
        found = exact = solve(model, horizon=stages)
        action = exact.policy[0]  # of each state
    else:
        # The first action, for each symbol that may be seen before it in model 0.
        roots = belief_model(model).root
        first = model.initial_observation
        roots = roots[: 1 if first is None else first.shape[-1]]
        if isinstance(model, POMDP):
            found = hidden = solve(
                model, horizon=stages, gap=gap, method=method, **budget
            )
            report["converged"] = bool(hidden.converged)
            action = hidden.action(0, roots)
        else:
            found = robust = solve(model, horizon=stages, **budget)
            report["error"] = float(robust.error)
            action = robust.action(0, roots)
    chosen = action.tolist()
    report |= {
        "value": float(found.value),
        "lower": None if found.lower is None else float(found.lower),
        "upper": None if found.upper is None else float(found.upper),
        "action": chosen[0] if len(chosen) == 1 else chosen,
        "seconds": time.perf_counter() - start,
    }
    if actions:
        report["action_name"] = " or ".join(actions[a] for a in sorted(set(chosen)))
    if horizon is None:
        report["truncation_error"] = truncation_error(model, stages)
    if plot is not None:
        draw(found, plot, title=path.name, states=states, actions=actions)
        report["plot"] = str(plot)
    return report


def check_plot(path: Path | None, *, overwrite: bool) -> None:
    """Refuse a picture that could not be written, before the work that it shows."""
    if path is not None:
        from sdm.solvers_jax.plot import check_picture
        from sdm.storage.files import check_output_file

        check_picture(path)
        check_output_file(path, overwrite=overwrite)


def draw(found: "Solution", path: Path, **words: Any) -> None:
    """Draw a solution."""
    from sdm.solvers_jax.plot import save_picture

    save_picture(found, path, **words)
