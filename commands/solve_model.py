"""`sdm solve --model FILE`: solve a model from a file, keep and play its policy."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdm.commands.console import say, start_jax
from sdm.storage.ownership import check_absent

if TYPE_CHECKING:
    from sdm.solvers_jax.methods import Solution
    from sdm.tasks.model_formats import NamedModel
    from sdm.tasks.models import Model


SECONDS = 60.0  # default time limit of methods that have one

Progress = Callable[[float, float, float], None]


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
    progress: Progress,
) -> dict[str, Any]:
    """Solve one model from a file, keep or play the solution, and return a report.

    Warns of each entry of `options` that the method does not have. A method that
    reports bounds as it goes calls `progress` with the seconds so far and both bounds.

    Raises:
        ValueError: if the file holds a batch of models, the horizon is missing, or an
            output exists.

    """
    if wanted.out is not None:
        check_absent(wanted.out, overwrite=wanted.overwrite)
    start_jax()
    from sdm.solvers_jax import solve
    from sdm.tasks.model_files import load_with_names, truncation_error
    from sdm.tasks.models import batch_shape
    from sdm.tasks.simulation import check_simulation
    from sdm.tasks.stages import stages_of

    named = load_with_names(path)
    model, actions = named.model, named.actions
    if batch_shape(model):
        raise ValueError(f"`{path}`: expected one model, found a batch of models")
    if wanted.simulate is not None:
        check_simulation(model)
    horizon = stages_of(model) if horizon is None else horizon
    chosen_method = _method(model, method, options, horizon, progress)
    try:
        stages = _stages(model, horizon, chosen_method)
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}, with `--horizon`") from error
    report: dict[str, Any] = {
        "model": str(path),
        "kind": type(model).__name__,
        "method": chosen_method.name,
        "horizon": stages,
    }
    if hasattr(chosen_method, "gap"):
        report["gap_target"] = chosen_method.gap
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
            names = [actions[action] for action in chosen]
            report["action_name"] = names[0] if len(names) == 1 else names
            if named.states and len(names) == len(named.states):
                report["action_by_state"] = dict(zip(named.states, names, strict=True))
        if horizon is None and stages is not None:
            report["truncation_error"] = truncation_error(model, stages)
        keep(found, {**report, "states": named.states, "actions": actions})
    return report | _after(found, named, stages, wanted, path.name)


def _method(
    model: Any,
    name: str | None,
    options: Mapping[str, Any],
    horizon: int | None,
    progress: Progress,
) -> Any:
    """Return the method, with the options that it has; warn of the others.

    Without a name, it is one that suits the size of the model or, without a horizon, a
    discounted task, if there is one; else the default.
    """
    from sdm.solvers_jax.methods import (
        make_method,
        method_class,
        methods_for,
        option_names,
    )

    kind = type(model)
    endless = horizon is None and float(model.discount) < 1
    if name is None and "points" not in options:
        for own, method in methods_for(kind).items():
            suits = getattr(method, "suits", lambda model: False)
            if suits(model) or (endless and getattr(method, "endless", False)):
                name = own
                break
    chosen = method_class(kind, name)
    known = option_names(chosen)
    for option in options.keys() - known:
        say(
            f"warning: `--{option}` has no effect for {kind.__name__} models with the "
            f"method `{chosen.name}`",
            "yellow",
        )
    used = {option: value for option, value in options.items() if option in known}
    if "progress" in known:
        used["progress"] = progress
    if "seconds" in known:
        used.setdefault("seconds", SECONDS)
    return make_method(kind, name, used)


def _stages(model: Any, horizon: int | None, method: Any) -> int | None:
    """Return the number of decisions; None for a method that can do without.

    Raises:
        ValueError: if the task needs a number, and there is none.

    """
    from sdm.tasks.model_files import long_horizon

    discounted = float(model.discount) < 1
    if horizon is None and getattr(method, "endless", False) and discounted:
        return None
    return long_horizon(model) if horizon is None else horizon


def _after(
    found: "Solution",
    named: "NamedModel",
    horizon: int | None,
    wanted: Wanted,
    title: str,
) -> dict[str, Any]:
    """Play and draw the solution if wanted, and return what to report of it."""
    report: dict[str, Any] = {}
    if wanted.out is not None:
        report["out"] = str(wanted.out)
    if wanted.simulate is not None:
        try:
            report |= _simulated(found, named.model, horizon, wanted)
        except KeyboardInterrupt:
            say("warning: interrupted while playing episodes: not simulated", "yellow")
    if wanted.plot is not None:
        words = {"states": named.states, "actions": named.actions}
        draw(found, wanted.plot, title=title, **words)
        report["plot"] = str(wanted.plot)
    return report


def _values(found: "Solution") -> dict[str, Any]:
    """Return value, bounds and convergence of a solution, for the report.

    A lower bound of -inf, of plans with actions that are not admissible, is None.
    """
    shown: dict[str, Any] = {}
    for name, plain in (("converged", bool), ("error", float)):
        if hasattr(found, name):
            shown[name] = plain(getattr(found, name))
    return {
        **shown,
        **{
            name: None if x is None or not math.isfinite(x) else float(x)
            for name in ("value", "lower", "upper")
            for x in [getattr(found, name)]
        },
    }


@contextmanager
def _place(
    wanted: Wanted, path: Path, horizon: int | None, method: Any
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
    found: "Solution", model: "Model", horizon: int | None, wanted: Wanted
) -> dict[str, Any]:
    """Return the mean return of simulated episodes and its 95 % interval.

    These are lists with an entry for each model of an ambiguity set. Without a horizon,
    episodes end when later rewards hardly matter.
    """
    import numpy as np

    from sdm.tasks.model_files import long_horizon
    from sdm.tasks.simulation import simulate
    from sdm.tasks.streams import Stream, stream_key

    episodes = wanted.simulate or 0
    report: dict[str, Any] = {"episodes": episodes}
    if horizon is None:
        horizon = report["simulated_horizon"] = long_horizon(model)
    played = simulate(
        stream_key(wanted.seed, Stream.TEST_EPISODES),
        model,
        found,
        horizon=horizon,
        episodes=episodes,
    )
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
        return found.action(0, jnp.arange(len(model.initial))).tolist()
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
