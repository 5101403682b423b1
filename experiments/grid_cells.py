"""Expand the grids of an experiment into cells: one policy, one test and one seed each.

A cell's options are those of the profile, overridden by those of the learner, and these
by the values in the grid.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sdm.experiments.catalogue import profiles
from sdm.experiments.origin import origin_named
from sdm.experiments.spec import (
    UNSPELLED,
    Cell,
    Experiment,
    ExperimentError,
    Grid,
    Options,
    key_of,
)
from sdm.experiments.study import studies


def cells(experiment: Experiment, profile: str) -> list[Cell]:
    """Return the cells of an experiment in a profile, grouped by test.

    Policies for which the profile has no learner are skipped. Two cells with one key
    and different labels share one result.

    Raises:
        ExperimentError: if the profile is unknown or a grid is invalid.

    """
    if profile not in profiles():
        raise ExperimentError(
            f"unknown profile `{profile}`", f"profiles are {', '.join(profiles())}"
        )
    found = {
        (cell.key, cell.policy): cell
        for grid in experiment.grids
        if profile in grid.profiles
        for cell in _expand(experiment, profile, grid)
    }
    tests = {key_of(cell.test): None for cell in found.values()}
    order = {test: at for at, test in enumerate(tests)}
    return sorted(found.values(), key=lambda cell: order[key_of(cell.test)])


def _expand(experiment: Experiment, profile: str, grid: Grid) -> Iterator[Cell]:
    """Yield every cell of a grid in a profile."""
    about: Options = {"experiment": experiment.name, "profile": profile}
    sizes = profiles()[profile]
    if grid.study:
        yield from _study_cells(grid, sizes, about)
        return
    sizes = {**sizes, "learners": {**sizes["learners"], **experiment.learners}}
    corner = sizes.get("corner", False)
    seeds = grid.seeds or tuple(sizes["seeds"])
    parts = {"test": grid.test, "data": grid.data, "learn": grid.learn}
    for seed in seeds[:1] if corner else seeds:
        for chosen in _product(parts, corner=corner):
            for name, label in grid.policies.items():
                spec = _spec(sizes, grid, chosen, name)
                if spec is not None:
                    yield Cell(
                        **about,
                        **spec,
                        policy=label,
                        seed=seed,
                        shows=grid.shown,
                        paper=grid.paper,
                    )


def _study_cells(grid: Grid, sizes: Options, about: Options) -> Iterator[Cell]:
    """Yield every cell of a grid of a study."""
    study, corner = studies()[grid.study], sizes.get("corner", False)
    seeds = grid.seeds or study.seeds or tuple(sizes["seeds"])
    options = {"learn": grid.options}
    for seed in seeds[:1] if corner else seeds:
        for chosen in _product(options, corner=corner, lists=study.lists):
            yield Cell(
                **about,
                policy=study.label,
                learner=study.name,
                seed=seed,
                test={},
                data={},
                learn=chosen["learn"],
                study=study.condition(chosen["learn"]),
            )


def _product(
    parts: Mapping[str, Mapping[str, Any]],
    *,
    corner: bool,
    lists: Collection[str] = (),
) -> Iterator[dict[str, Options]]:
    """Yield every combination of the listed values, or only the first of each list.

    Options in `lists` have lists as values, and lists of lists as axes.
    """
    axes = [
        [(part, name, value) for value in (values[:1] if corner else values)]
        for part, options in parts.items()
        for name, values in options.items()
        if _is_axis(values) and (name not in lists or any(map(_is_axis, values)))
    ]
    for combination in itertools.product(*axes):
        chosen = {part: dict(options) for part, options in parts.items()}
        for part, name, value in combination:
            chosen[part][name] = value
        yield chosen


def _is_axis(value: Any) -> bool:
    return isinstance(value, list)


def _spec(
    sizes: Options, grid: Grid, chosen: Mapping[str, Options], name: str
) -> Options | None:
    """Return learner, test, data and learn of one policy in one test.

    The learner overrides the sizes of the profile, and the grid those of the learner.
    Returns None if the profile has no such learner.
    """
    family = chosen["test"].get("family", UNSPELLED["family"])
    kind = chosen["test"]["kind"]
    learner = _chosen(sizes["learners"].get(name, {}), family, kind)
    if not learner:
        if not _is_untrained(name):
            return None
        learner = {"learner": "untrained", "name": name}
    made_by = learner.pop("learner")
    parts = {
        part: {
            **_chosen(sizes[part], family, kind),
            **learner.pop(part, {}),
            **chosen[part],
        }
        for part in ("test", "data")
    }
    _lower_to_available(parts, chosen)
    learn = {**learner, **chosen["learn"]}
    found = origin_named(made_by).options(learn, parts["data"], grid)
    parts["learn"], parts["data"] = found
    _lower(sizes.get("most", {}), parts)
    return {"learner": made_by, **parts}


def _lower_to_available(
    parts: Mapping[str, Options], chosen: Mapping[str, Options]
) -> None:
    """Limit numbers of tasks, except those in the grid, to those of the family."""
    from sdm.experiments.cell_configs import test_family, training_family

    test, data = parts["test"], parts["data"]
    limits = {
        "test": test_family(test).available("test"),
        "data": training_family(test, data).available("train"),
    }
    for part, limit in limits.items():
        own = "tasks" in chosen[part]
        if limit is not None and not own and "tasks" in parts[part]:
            parts[part]["tasks"] = min(limit, parts[part]["tasks"])


def _is_untrained(name: str) -> bool:
    """Return whether a policy needs no training; False for another profile's learner.

    Raises:
        ExperimentError: if the name is neither a policy nor a learner of any profile.

    """
    from sdm.policies.registry import is_rule, rules

    learners = {each for sizes in profiles().values() for each in sizes["learners"]}
    if not is_rule(name) and name not in learners:
        raise ExperimentError(
            f"unknown policy `{name}`",
            f"policies without training are {', '.join(rules())}; learners are "
            f"{', '.join(sorted(learners))}",
        )
    return is_rule(name)


def _chosen(options: Mapping[str, Any], family: str, kind: str) -> Options:
    """Return options, overridden by those for the kind and then for the family."""
    general = {k: x for k, x in options.items() if k not in ("family", "kind")}
    of_kind = options.get("kind", {}).get(kind, {})
    return {**general, **of_kind, **options.get("family", {}).get(family, {})}


def _lower(most: Mapping[str, Mapping[str, int]], parts: Mapping[str, Options]) -> None:
    """Limit options to a profile's largest values; in tests, set missing ones."""
    for part, limits in most.items():
        options = parts[part]
        for name, limit in limits.items():
            if part == "test" or name in options:
                options[name] = min(limit, options.get(name, limit))
