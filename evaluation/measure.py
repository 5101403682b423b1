"""Measures of a policy beyond its gap, for the families that they make sense for.

Each file in `measures` registers the measures that it defines: functions from a
benchmark and a policy's episodes to entries of the policy's result, or none.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sdm.data.benchmark import Benchmark
from sdm.storage.plugins import load_plugins
from sdm.tasks.rollout import Trajectory

# Returns values that JSON can represent by name; {} if it does not apply.
Measure = Callable[[Benchmark, Trajectory], dict[str, Any]]
_measures: list[Measure] = []
_titles: dict[str, str] = {}


def register_measure(titles: Mapping[str, str]) -> Callable[[Measure], Measure]:
    """Return a decorator that registers a measure.

    Args:
        titles: titles of the columns of its entries in tables of policies, by name;
            other entries are in JSON only.

    """

    def add(measure: Measure) -> Measure:
        _measures.append(measure)
        _titles.update(titles)
        return measure

    return add


@cache
def measures() -> tuple[Measure, ...]:
    """Return every registered measure."""
    load_plugins("sdm.evaluation.measures")
    return tuple(_measures)


def measure_titles() -> Mapping[str, str]:
    """Return the titles of columns by the name of the entry."""
    measures()
    return _titles


def measured(bed: Benchmark, played: Trajectory) -> dict[str, Any]:
    """Return the entries of all measures that apply to a benchmark.

    Args:
        bed: the benchmark.
        played: the policy's episodes [B, N, T] in its tasks.

    """
    found: dict[str, Any] = {}
    for measure in measures():
        found |= measure(bed, played)
    return found
