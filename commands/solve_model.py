"""`sdm solve --model FILE`: solve a model from a file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.console import say, start_jax

if TYPE_CHECKING:
    from sdm.data.solved_tasks import Solution
    from sdm.tasks.models import Model


def solve_model(
    path: Path,
    horizon: int | None,
    *,
    method: str | None,
    options: Mapping[str, Any],
    plot: Path | None,
) -> tuple[dict[str, Any], float | None]:
    """Solve one model from a file, and draw the solution to `plot`.

    Returns the report and the relative gap to reach, None if the method has no such
    option. Warns of each entry of `options` that the method does not have.

    Raises:
        ValueError: if the file holds a batch of models or the horizon is missing.

    """
    start_jax()
    import numpy as np

    from sdm.solvers_jax import solve
    from sdm.solvers_jax.methods import make_method, method_class, option_names
    from sdm.tasks.model_files import (
        load_with_names,
        long_horizon,
        truncation_error,
    )

    model, states, actions = load_with_names(path)
    if np.ndim(model.reward) != 2:
        raise ValueError(f"`{path}`: expected one model, found a batch of models")
    kind = type(model)
    known = option_names(method_class(kind, method))
    for name in options.keys() - known:
        say(f"warning: `--{name}` has no effect for {kind.__name__} models", "yellow")
    used = {name: value for name, value in options.items() if name in known}
    chosen_method = make_method(kind, method, used)
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
    found: Solution = solve(model, horizon=stages, method=chosen_method)
    chosen = _first_actions(found, model)
    for name, plain in (("converged", bool), ("error", float)):
        if hasattr(found, name):
            report[name] = plain(getattr(found, name))
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
    return report, getattr(chosen_method, "gap", None)


def _first_actions(found: "Solution", model: "Model") -> list[int]:
    """Return the first action for each state, or for each initial observation."""
    import jax.numpy as jnp

    from sdm.solvers_jax.belief_model import belief_model
    from sdm.tasks.models import APOMDP, POMDP

    if not isinstance(model, POMDP | APOMDP):
        return found.action(0, jnp.arange(model.reward.shape[0])).tolist()
    roots, first = belief_model(model).root, model.initial_observation
    # The initial beliefs under model 0 come first.
    return found.action(0, roots[: 1 if first is None else first.shape[-1]]).tolist()


def check_plot(path: Path | None, *, overwrite: bool) -> None:
    """Raise an error, before solving, if the figure cannot be written."""
    if path is not None:
        from sdm.solvers_jax.plot import check_picture
        from sdm.storage.files import check_output_file

        check_picture(path)
        check_output_file(path, overwrite=overwrite)


def draw(found: "Solution", path: Path, **words: Any) -> None:
    """Draw a solution to a file."""
    from sdm.solvers_jax.plot import save_picture

    save_picture(found, path, **words)
