"""`sdm solve --model FILE`: solve a model from a file, keep and play its policy."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.console import say, start_jax

if TYPE_CHECKING:
    from sdm.data.solved_tasks import Solution
    from sdm.tasks.model_formats import NamedModel
    from sdm.tasks.models import Model


@dataclass(frozen=True)
class Wanted:
    """What to do with the solution of a model.

    Attributes:
        plot: figure to draw; None for none.
        out: folder for the solution; None for none.
        simulate: number of episodes to play; None for none.
        seed: random seed of the episodes.
        overwrite: whether to replace existing outputs.

    """

    plot: Path | None = None
    out: Path | None = None
    simulate: int | None = None
    seed: int = 0
    overwrite: bool = False


def solve_model(
    path: Path,
    horizon: int | None,
    *,
    method: str | None,
    options: Mapping[str, Any],
    wanted: Wanted,
) -> dict[str, Any]:
    """Solve one model from a file, keep or play the solution, and return a report.

    Warns of each entry of `options` that the method does not have.

    Raises:
        ValueError: if the file holds a batch of models, the horizon is missing, or an
            output exists.

    """
    start_jax()
    from sdm.solvers_jax import solve
    from sdm.tasks.model_files import load_with_names, long_horizon, truncation_error
    from sdm.tasks.models import batch_shape

    named = load_with_names(path)
    model, actions = named.model, named.actions
    if batch_shape(model):
        raise ValueError(f"`{path}`: expected one model, found a batch of models")
    chosen_method = _method(type(model), method, options)
    try:
        stages = long_horizon(model) if horizon is None else horizon
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}, with `--horizon`") from error
    report: dict[str, Any] = {
        "model": str(path),
        "kind": type(model).__name__,
        "horizon": stages,
    }
    if hasattr(chosen_method, "gap"):
        report["gap"] = chosen_method.gap
    with _place(wanted, path, stages, chosen_method) as keep:
        start = time.perf_counter()
        found: Solution = solve(model, horizon=stages, method=chosen_method)
        chosen = _first_actions(found, model)
        report |= _values(found)
        report |= {
            "action": chosen[0] if len(chosen) == 1 else chosen,
            "seconds": time.perf_counter() - start,
        }
        if actions:
            report["action_name"] = " or ".join(actions[a] for a in sorted(set(chosen)))
        if horizon is None:
            report["truncation_error"] = truncation_error(model, stages)
        keep(found, {**report, "states": named.states, "actions": actions})
    return report | _after(found, named, stages, wanted, path.name)


def _method(kind: type, name: str | None, options: Mapping[str, Any]) -> Any:
    """Return the method, with the options that it has; warn of the others."""
    from sdm.solvers_jax.methods import make_method, method_class, option_names

    known = option_names(method_class(kind, name))
    for option in options.keys() - known:
        say(f"warning: `--{option}` has no effect for {kind.__name__} models", "yellow")
    used = {option: value for option, value in options.items() if option in known}
    return make_method(kind, name, used)


def _after(
    found: "Solution",
    named: "NamedModel",
    horizon: int,
    wanted: Wanted,
    title: str,
) -> dict[str, Any]:
    """Play and draw the solution if wanted, and return what to report of it."""
    report: dict[str, Any] = {}
    if wanted.out is not None:
        report["out"] = str(wanted.out)
    if wanted.simulate is not None:
        report |= _simulated(found, named.model, horizon, wanted)
    if wanted.plot is not None:
        words = {"states": named.states, "actions": named.actions}
        draw(found, wanted.plot, title=title, **words)
        report["plot"] = str(wanted.plot)
    return report


def _values(found: "Solution") -> dict[str, Any]:
    """Return value, bounds and convergence of a solution, for the report."""
    shown: dict[str, Any] = {}
    for name, plain in (("converged", bool), ("error", float)):
        if hasattr(found, name):
            shown[name] = plain(getattr(found, name))
    return {
        **shown,
        "value": float(found.value),
        "lower": None if found.lower is None else float(found.lower),
        "upper": None if found.upper is None else float(found.upper),
    }


@contextmanager
def _place(
    wanted: Wanted, path: Path, horizon: int, method: Any
) -> Iterator[Callable[["Solution", dict[str, Any]], None]]:
    """Yield a function that keeps the solution, with entries for its manifest.

    Raises an error before the block if the folder cannot be written.
    """
    if wanted.out is None:
        yield lambda found, about: None
        return
    from sdm.solvers_jax.solution_files import solution_folder, write_solution

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    plan = {
        "command": "solve",
        "model": {"file": str(path), "sha256": digest},
        "horizon": horizon,
        "method": repr(method),
    }
    with solution_folder(
        wanted.out, plan, inputs=(path,), overwrite=wanted.overwrite
    ) as partial:
        yield lambda found, about: write_solution(found, partial, {**about, **plan})


def _simulated(
    found: "Solution", model: "Model", horizon: int, wanted: Wanted
) -> dict[str, Any]:
    """Return the mean return of simulated episodes and its 95 % interval.

    These are lists with an entry for each model of an ambiguity set.
    """
    import numpy as np

    from sdm.tasks.simulation import simulate
    from sdm.tasks.streams import Stream, stream_key

    episodes = wanted.simulate or 0
    played = simulate(
        stream_key(wanted.seed, Stream.TEST_EPISODES),
        model,
        found,
        horizon=horizon,
        episodes=episodes,
    )
    report: dict[str, Any] = {"episodes": episodes}
    for name, values in played._asdict().items():
        plain = [None if np.isnan(x) else float(x) for x in values]
        report[f"simulated_{name}"] = plain[0] if len(plain) == 1 else plain
    return report


def _first_actions(found: "Solution", model: "Model") -> list[Any]:
    """Return the first action for each state, or for each initial observation."""
    own = getattr(found, "first_actions", None)
    if own is not None:
        return own().tolist()
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
