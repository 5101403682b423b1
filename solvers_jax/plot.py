"""Figures of solutions: actions and values by state and stage, and the refinement."""

import os
from collections.abc import Callable, Sequence
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from sdm.solvers_jax.apomdp import APOMDPSolution
from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.methods import Solution
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.solvers_jax.search_solution import SearchSolution
from sdm.storage.files import temporary_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE = 201  # number of beliefs along the line
MOST_NAMED = 12  # largest number of actions in a legend


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise an error unless matplotlib can write the format of this file name.

    Call this function before solving.

    Raises:
        ValueError: if the format is unknown.
        ModuleNotFoundError: if matplotlib is not installed.

    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"`{path}`: must end in .png, .pdf or .svg")


def save_picture(
    solution: Solution,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    states: Sequence[str] = (),
    actions: Sequence[str] = (),
) -> None:
    """Draw the solution of a single task to a file.

    For an MDP, the figure shows the optimal action and the value of every state at
    every stage. For other models, it shows actions and values of the plans along a line
    of beliefs between the states of the lowest and the highest value at the first
    stage; plans are accurate only near reachable beliefs. It also shows the value, and
    its upper bound if there is one, against the number of beliefs per stage.

    Args:
        solution: solution of one task, without batch axes.
        path: the file to write; its suffix defines the format.
        title: title of the figure.
        states: a name for each state; numbers if empty.
        actions: a name for each action; numbers if empty.

    Raises:
        ValueError: if the solution is a batch, its class has no figure or the format is
            unknown.

    """
    from matplotlib.figure import Figure

    check_picture(path)
    path = Path(path)
    if np.ndim(solution.value):
        raise ValueError(
            f"solution: must be of one task, found a batch {np.shape(solution.value)}"
        )
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(title)
    draw_solution(solution, figure, states, actions)
    with temporary_name(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix.removeprefix("."))


@singledispatch
def draw_solution(
    solution: Any, figure: "Figure", states: Sequence[str], actions: Sequence[str]
) -> None:
    """Draw a solution; register a function for each class of solutions.

    Raises:
        ValueError: if there is none for this class.

    """
    raise ValueError(
        f"solution: {type(solution).__name__} has no figure: omit `--plot`"
    )


@draw_solution.register
def _(
    solution: MDPSolution, figure: Any, states: Sequence[str], names: Sequence[str]
) -> None:
    from matplotlib.ticker import MaxNLocator

    actions, values = figure.subplots(1, 2)
    count = solution.q.shape[-1]
    _draw_actions(figure, actions, np.asarray(solution.policy), count, names)
    actions.set_ylabel("state")
    shown = np.asarray(solution.state_value[:-1]).T
    picture = values.imshow(shown, origin="lower", aspect="auto", cmap="cividis")
    figure.colorbar(picture, ax=values)
    values.set(title="value to go", xlabel="stage t", ylabel="state")
    for axis in (actions.yaxis, values.yaxis, values.xaxis):
        axis.set_major_locator(MaxNLocator(integer=True))


@draw_solution.register(POMDPSolution)
@draw_solution.register(APOMDPSolution)
def _(
    solution: POMDPSolution | APOMDPSolution,
    figure: Any,
    states: Sequence[str],
    names: Sequence[str],
) -> None:
    def value(t: int, beliefs: Array) -> Array:
        return solution.action_value(jnp.asarray(t), beliefs).max(-1)

    stages, _, count = solution.plans.point.shape
    rounds = _draw_along_a_line(figure, solution, stages, count, value, states, names)
    _draw_rounds(rounds, solution)


@draw_solution.register
def _(
    solution: SearchSolution, figure: Any, states: Sequence[str], names: Sequence[str]
) -> None:
    def value(t: int, beliefs: Array) -> Array:
        vector = solution.alpha_vectors[t]
        possible = jnp.where(beliefs[:, None] > 0, vector, 0)
        return (beliefs[:, None] * possible).sum(-1).max(-1)

    stages, _, count = solution.vector.shape
    axes = _draw_along_a_line(figure, solution, stages, count, value, states, names)
    seconds, lower, upper = np.asarray(solution.history).T
    axes.plot(seconds, upper, label="upper bound")
    axes.plot(seconds, lower, label="lower bound")
    axes.set(title="value of the task", xlabel="seconds")
    axes.legend()


def _draw_along_a_line(
    figure: "Figure",
    solution: Any,
    stages: int,
    states: int,
    value: Callable[[int, Array], Array],
    state_names: Sequence[str],
    names: Sequence[str],
) -> "Axes":
    """Draw actions and values between the worst and the best state."""
    actions, values, rest = figure.subplots(1, 3)
    corners = np.array(value(0, jnp.eye(states)))
    low = int(corners.argmin())
    corners[low] = -np.inf  # so that the two ends of the line differ
    high = int(corners.argmax())
    share = np.linspace(0, 1, LINE)
    line = np.zeros((LINE, states))
    line[:, low] += 1 - share
    line[:, high] += share
    beliefs = jnp.asarray(line, solution.value.dtype)
    # Stages are arrays, to compile only once.
    done = np.array([solution.action(jnp.asarray(t), beliefs) for t in range(stages)])
    known = state_names or [f"state {i}" for i in range(states)]
    where = f"probability of {known[high]}, otherwise {known[low]}"
    _draw_actions(figure, actions, done, int(done.max()) + 1, names, top=1.0)
    actions.set_ylabel(where)
    for t in sorted({0, stages // 2, stages - 1}):
        values.plot(share, value(t, beliefs), label=f"t = {t}")
    among = f"\n(beliefs in 2 of the {states} states)" * (states > 2)
    values.set(title="value to go, from the plans", xlabel=where + among)
    values.legend()
    return rest


def _draw_rounds(axes: "Axes", solution: POMDPSolution | APOMDPSolution) -> None:
    points = solution.rounds.points
    if solution.upper is None:
        axes.plot(points, solution.rounds.value, "o-", label="value")
    else:
        axes.plot(points, solution.rounds.upper, "v-", label="upper bound")
        axes.plot(points, solution.rounds.value, "^-", label="lower bound")
    axes.set_xscale("log", base=2)
    axes.set_xticks(points, [str(n) for n in points])
    axes.set(title="value of the task", xlabel="beliefs per stage")
    axes.legend()


def _draw_actions(
    figure: "Figure",
    axes: "Axes",
    action: Int[np.ndarray, "T X"],
    count: int,
    names: Sequence[str],
    *,
    top: float | None = None,
) -> None:
    """Draw actions by stage and state, or by a share up to `top`."""
    names = names or [str(a) for a in range(count)]
    from matplotlib import colormaps
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    stages, few = len(action), count <= MOST_NAMED
    colours = colormaps["Set3" if few else "viridis"].resampled(count)
    axes.imshow(
        action.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=colours,
        vmin=-0.5,
        vmax=count - 0.5,
        extent=None if top is None else (-0.5, stages - 0.5, 0, top),
    )
    axes.set(title="action", xlabel="stage t")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    used = np.unique(action)
    if len(used) <= MOST_NAMED:
        patches = [Patch(color=colours(int(a)), label=names[a]) for a in used]
        axes.legend(handles=patches, loc="center left", bbox_to_anchor=(1, 0.5))
