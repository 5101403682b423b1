"""Figures of the theory results, drawn from rows without a display."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]


def _figure(panels: int) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * panels + 0.5, 3.6), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _values(rows: Rows, name: str) -> list[Any]:
    """Return the distinct values of a column, in order of appearance."""
    return list(dict.fromkeys(row[name] for row in rows))


def _where(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def _mean(rows: Rows, by: str, of: str) -> tuple[list[Any], list[float]]:
    """Return the values of one column, and the mean of another at each of them."""
    at = _values(rows, by)
    return at, [float(np.mean([r[of] for r in _where(rows, **{by: x})])) for x in at]


def _colours(count: int) -> Iterable[Any]:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.9, count))


def gap_against_bound(rows: Rows) -> "Figure":
    """Draw gap against bound: a panel per κ, a curve per N, a point per M.

    The bound holds below the reference line. This is Fig. 4 of Zhang, Aghaei,
    Saghafian (2026).
    """
    kappas, trains = _values(rows, "kappa"), _values(rows, "train")
    figure, panels = _figure(len(kappas))
    for axes, kappa in zip(panels, kappas, strict=True):
        own = _where(rows, kappa=kappa)
        ends = [min(r["gap"] for r in own), max(r["bound"] for r in own)]
        axes.plot(ends, ends, "k--", label="gap = bound")
        for train, colour in zip(trains, _colours(len(trains)), strict=True):
            curve = _where(own, train=train)
            axes.errorbar(
                [r["bound"] for r in curve],
                [r["gap"] for r in curve],
                yerr=[2 * r["gap_se"] for r in curve],
                marker="o",
                markersize=3,
                color=colour,
                label=f"N = {train}",
            )
        axes.set(xscale="log", yscale="log", title=f"κ = {kappa:g}")
        axes.set_xlabel("2 ε̂ (1 - γ^T)/(1 - γ)")
    panels[0].set_ylabel("gap  J(π*) - J(π̂)")
    panels[-1].legend(fontsize="small")
    return figure


def flow(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> "Figure":
    """Draw the excess loss of gradient flows over time, one named curve each."""
    figure, (axes,) = _figure(1)
    for (name, (time, excess)), colour in zip(
        curves.items(), _colours(len(curves)), strict=True
    ):
        shown = (excess > 1e-13) & (time > 0)
        axes.loglog(time[shown], excess[shown], color=colour, label=name)
    axes.set(xlabel="time of the flow", ylabel="loss - smallest loss")
    axes.legend()
    return figure


def finite_training(rows: Rows) -> "Figure":
    """Draw excess risk and error of Γ against the number of training tasks."""
    figure, (left, right) = _figure(2)
    for column, name in (
        ("excess_sgd", "stochastic gradients"),
        ("excess_least_squares", "least squares"),
    ):
        left.plot(*_mean(rows, "tasks", column), "o-", label=name)
    tasks, excess = _mean(rows, "tasks", "excess_least_squares")
    line = excess[-1] * tasks[-1] / np.asarray(tasks)
    left.plot(tasks, line, "k--", label="1/n")
    left.axhline(rows[0]["risk_at_minimum"], color="grey", label="risk at the minimum")
    left.set(xscale="log", yscale="log", xlabel="training tasks n", ylabel="excess ε²")
    left.legend(fontsize="small")
    right.plot(*_mean(rows, "tasks", "gamma_error"), "o-")
    right.set(xscale="log", yscale="log", xlabel="training tasks n")
    right.set_ylabel("‖Γ̂ - Γ‖ / ‖Γ‖, stochastic gradients")
    return figure


def linear_mdp(rows: Rows) -> "Figure":
    """Draw gap, bound and calibration against the support size."""
    figure, (left, right) = _figure(2)
    trains = _values(rows, "train")
    for train, colour in zip(trains, _colours(len(trains)), strict=True):
        own = _where(rows, train=train)
        left.plot(*_mean(own, "support", "gap"), "o-", color=colour, label=f"N={train}")
        left.plot(*_mean(own, "support", "bound"), "--", color=colour)
        right.plot(*_mean(own, "support", "calibration"), "o-", color=colour)
    left.set(
        xscale="log", yscale="log", xlabel="M", ylabel="gap (line), bound (dashed)"
    )
    left.legend(fontsize="small")
    right.axhline(1, color="grey")
    right.set(xscale="log", xlabel="M", ylabel="calibration C, measured on policy")
    return figure


def covariate_shift(rows: Rows) -> "Figure":
    """Draw risk in units of Lemma 1: a panel per kind of shift, a curve per M."""
    kinds, supports = _values(rows, "shift"), _values(rows, "support")
    figure, panels = _figure(len(kinds))
    for axes, kind in zip(panels, kinds, strict=True):
        for support, colour in zip(supports, _colours(len(supports)), strict=True):
            own = _where(rows, shift=kind, support=support)
            at = [r["amount"] for r in own]
            for column, style in (("risk", "o-"), ("risk_matched", ":")):
                ratio = [r[column] / r["lemma_1"] for r in own]
                label = f"M = {support}" if column == "risk" else None
                axes.plot(at, ratio, style, color=colour, label=label)
        axes.axhline(1, color="k", linestyle="--")
        axes.set(yscale="log", xlabel=kind)
        if not kind.startswith("rotation"):
            axes.set_xscale("log", base=2 if kind == "scale" else 10)
    panels[0].set_ylabel("risk / Lemma 1 (dotted: matched training)")
    panels[-1].legend(fontsize="small")
    return figure


def looseness(rows: Rows) -> "Figure":
    """Draw gap / bound (solid) and gap / scaled bound (dashed) against N."""
    kappas, supports = _values(rows, "kappa"), _values(rows, "support")
    figure, panels = _figure(len(kappas))
    for axes, kappa in zip(panels, kappas, strict=True):
        for support, colour in zip(supports, _colours(len(supports)), strict=True):
            own = _where(rows, kappa=kappa, support=support)
            at = [r["train"] for r in own]
            for column, style in (("bound_calibrated", "o-"), ("bound_scaled", "--")):
                ratio = [r["gap"] / r[column] for r in own]
                label = f"M = {support}" if column == "bound_calibrated" else None
                axes.plot(at, ratio, style, color=colour, label=label)
        axes.set(xscale="log", title=f"κ = {kappa:g}", xlabel="N")
    panels[0].set_ylabel("gap / bound (dashed: scaled bound)")
    panels[-1].legend(fontsize="small")
    return figure


def noisy_labels(rows: Rows) -> "Figure":
    """Draw risk and gap under noise, trained without it (solid) or with it (dotted)."""
    figure, (left, right) = _figure(2)
    noises = _values(rows, "noise")
    for sigma, colour in zip(noises, _colours(len(noises)), strict=True):
        own, name = _where(rows, noise=sigma), f"σ = {sigma:g}"
        left.plot(*_mean(own, "support", "risk"), "o-", color=colour, label=name)
        column = "risk_trained_with_noise"
        left.plot(*_mean(own, "support", column), ":", color=colour)
        right.plot(*_mean(own, "support", "gap"), "o-", color=colour, label=name)
        column = "gap_trained_with_noise"
        right.plot(*_mean(own, "support", column), ":", color=colour)
    left.plot(*_mean(rows, "support", "lemma_1"), "k--", label="Lemma 1")
    left.set(xscale="log", yscale="log", xlabel="M", ylabel="ε²")
    left.legend(fontsize="small")
    right.set(xscale="log", yscale="log", xlabel="M", ylabel="gap")
    return figure


DRAWINGS: "dict[str, Callable[[Rows], Figure]]" = {
    "finite-training": finite_training,
    "linear-mdp": linear_mdp,
    "covariate-shift": covariate_shift,
    "looseness": looseness,
    "noisy-labels": noisy_labels,
}


def save(figure: "Figure", path: Path) -> None:
    """Write the figure as `path`.png and `path`.pdf."""
    for suffix in (".png", ".pdf"):
        figure.savefig(path.with_suffix(suffix), dpi=150)


def regret_training(rows: Rows) -> "Figure":
    """Draw alignment with the identity and step over iterations, a curve per space."""
    figure, panels = _figure(2)
    spaces = _values(rows, "space")
    for space, colour in zip(spaces, _colours(len(spaces)), strict=True):
        own = _where(rows, space=space)
        n = [r["iteration"] for r in own]
        panels[0].plot(n, [r["alignment"] for r in own], color=colour, label=space)
        panels[1].plot(n, [r["step"] for r in own], color=colour, label=space)
        steps = [r["predicted_step"] for r in own]
        panels[1].plot(n, steps, "--", color=colour, label=f"{space}, first order")
    panels[0].set_ylabel("cosine of V and the identity")
    panels[1].set_ylabel("step η of follow the regularised leader")
    for axes in panels:
        axes.set_xlabel("iteration")
    panels[1].legend(fontsize="small")
    return figure
