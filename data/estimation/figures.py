"""Figures of an estimate: visits of states and actions, radii, and logged returns."""

from pathlib import Path

import numpy as np

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.estimator import Estimate
from sdm.data.logs import Logs
from sdm.data.logs.summary import returns_of, visits_of
from sdm.storage.files import temporary_name


def save_figures(
    logs: Logs, found: Estimate, config: EstimationConfig, path: Path
) -> None:
    """Save a figure with a panel of visits, of radii if there are any, and of returns.

    Args:
        logs: the episodes.
        found: the estimate.
        config: discount, and the number of visits from which on a pair counts.
        path: the file, whose suffix is the format.

    """
    from matplotlib.figure import Figure

    radii = None if found.radius is None else np.concatenate(found.radius)
    panels = 2 + (radii is not None)
    figure = Figure(figsize=(4.6 * panels, 3.8), layout="constrained")
    first, *rest = figure.subplots(1, panels)
    visits = np.sort(visits_of(logs).ravel())[::-1]
    first.step(np.arange(1, len(visits) + 1), np.maximum(visits, 0.5), where="mid")
    first.axhline(config.min_visits, color="grey", linestyle="--")
    first.set_yscale("log")
    first.set_xlabel("pair of observation and action, most visited first")
    first.set_ylabel("decisions (unvisited at 0.5)")
    if radii is not None:
        finite = radii[np.isfinite(radii)]
        rest[0].hist(finite, bins=40)
        rest[0].set_xlabel("radius of the set of a visited row")
        rest[0].set_ylabel("rows")
    rest[-1].hist(returns_of(logs, config.discount), bins=40)
    rest[-1].set_xlabel("logged return")
    rest[-1].set_ylabel("episodes")
    for axes in (first, *rest):
        axes.spines[["top", "right"]].set_visible(False)
    with temporary_name(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:])
