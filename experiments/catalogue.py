"""Read profiles and experiments from configuration files.

`profiles.toml` defines the sizes of tests and trainings in each profile, and
`configs/NAME.toml` the grids of an experiment. Users' configurations have the same
format. `grid_cells` expands the grids.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from sdm.experiments.spec import (
    MEASURES,
    PROFILES,
    Claim,
    Experiment,
    ExperimentError,
    Grid,
    Options,
)
from sdm.experiments.study import studies

HERE = Path(__file__).parent
PUBLISHED = HERE / "published"
SUFFIX = ".toml"
AXIS = ("x", "x_title")  # keys that an experiment other than a study needs


@cache
def profiles() -> dict[str, Options]:
    """Return the content of `profiles.toml`."""
    return tomllib.loads((HERE / "profiles.toml").read_text(encoding="utf-8"))


@cache
def experiments() -> dict[str, Experiment]:
    """Return the package's experiments by name, in the order of the paper's figures."""
    found = [read(path) for path in sorted((HERE / "configs").glob(f"*{SUFFIX}"))]
    order = sorted(found, key=lambda e: (not e.paper, _figure(e.paper), e.name))
    return {experiment.name: experiment for experiment in order}


def _figure(paper: str) -> tuple[int, int]:
    """Return a figure's number and position as a sort key."""
    number = int(paper.split()[1]) if paper else 0
    places = ("left", "centre", "right")
    return number, next((i for i, p in enumerate(places) if p in paper), 0)


def experiment_named(name: str) -> Experiment:
    """Return an experiment by its name, or by the path of a configuration.

    Raises:
        ExperimentError: if it is unknown or its configuration is invalid.

    """
    if name in experiments():
        return experiments()[name]
    path = Path(name)
    if path.suffix != SUFFIX:
        raise ExperimentError(
            f"unknown experiment `{name}`",
            f"experiments are {', '.join(experiments())}; you can also pass a "
            f"FILE{SUFFIX}",
        )
    if not path.is_file():
        raise ExperimentError(f"experiment `{name}`: the file does not exist")
    if path.stem in experiments():
        raise ExperimentError(
            f"experiment `{name}`: the package has an experiment `{path.stem}`",
            "rename the file, since its name identifies the rows",
        )
    return dataclasses.replace(read(path), source=name)


def read(path: Path) -> Experiment:
    """Read an experiment from its configuration.

    Raises:
        ExperimentError: if the configuration is invalid.

    """
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
        shows = options.pop("shows", {})
        tables = options.pop("cells")
        grids = tuple(_grid({"shows": shows, **table}) for table in tables)
        options["columns"] = tuple(options.pop("columns", ()))
        pairs = options.pop("compare", ())
        options["compare"] = tuple((first, second) for first, second in pairs)
        options["claims"] = _claims(options.pop("claims", []))
        _check_keys(options, Experiment, {"name", "grids"}, "at the top")
        found = Experiment(name=path.stem, grids=grids, **options)
        if not found.study:
            _check_keys(options, Experiment, {"name", "grids"}, "at the top", AXIS)
        _check_claims(found)
    except KeyError as error:
        raise ExperimentError(f"`{path}`: {error.args[0]} is missing") from error
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ExperimentError(f"`{path}`: {error}") from error
    if len(kinds := {grid.study for grid in grids}) > 1:
        raise ExperimentError(
            f"`{path}`: all tables `cells` must be of one study or of policies, found "
            f"{', '.join(sorted(kind or 'policies' for kind in kinds))}",
            "write one configuration for each",
        )
    if found.measure not in MEASURES:
        raise ExperimentError(
            f"`{path}`: unknown measure `{found.measure}` (measures are "
            f"{', '.join(MEASURES)})"
        )
    if found.goal is not None and (found.facet or found.x_scale != "log"):
        raise ExperimentError(
            f"`{path}`: a goal needs one panel and a logarithmic axis, found facet "
            f"{found.facet!r} and x_scale {found.x_scale!r}"
        )
    return found


def _check_keys(
    options: Options,
    kind: type,
    made: set[str],
    where: str,
    needed: Sequence[str] = (),
) -> None:
    """Raise an error for a missing key, or one that is no field; `made` are neither.

    Raises:
        KeyError: if a field without a default, or one in `needed`, has no key.
        ValueError: if a key is no field.

    """
    known = [x for x in dataclasses.fields(kind) if x.name not in made]
    fields, nothing = [x.name for x in known], dataclasses.MISSING
    for name in options:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise ValueError(
                f"unknown key `{name}` {where}{hint} (keys are {', '.join(fields)})"
            )
    for each in known:
        required = each.default is nothing and each.default_factory is nothing
        if (required or each.name in needed) and each.name not in options:
            raise KeyError(f"`{each.name}` {where}")


def _claims(tables: object) -> tuple[Claim, ...]:
    if not isinstance(tables, list) or not all(isinstance(x, dict) for x in tables):
        raise ValueError("claims: must be tables `[[claims]]`")
    for table in tables:
        _check_keys(table, Claim, set(), "in a table `claims`")
    return tuple(Claim(**table) for table in tables)


def _check_claims(experiment: Experiment) -> None:
    """Raise `ValueError` for a claim that no rows could test."""
    if experiment.claims and experiment.study:
        raise ValueError(
            f"claims: compare policies in tests; the study `{experiment.study}` states "
            "claims of its own"
        )
    known = sorted({x for grid in experiment.grids for x in grid.policies.values()})
    values = {f"test.{name}" for grid in experiment.grids for name in grid.test}
    for claim in experiment.claims:
        if claim.across and not isinstance(claim.than, str):
            raise ValueError(
                f"claim `{claim.text}`: across = {claim.across!r}: has no effect with "
                f"than = {claim.than}, a number"
            )
        if claim.across and claim.across not in values:
            raise ValueError(
                f"claim `{claim.text}`: across = {claim.across!r}: must be a value of "
                f"the tests ({', '.join(sorted(values))})"
            )
        for name in (claim.less, claim.than):
            if isinstance(name, str) and name.partition(",")[0] not in known:
                raise ValueError(
                    f"claim `{claim.text}`: no policy `{name}` (policies are "
                    f"{', '.join(known)})"
                )


def _grid(options: Options) -> Grid:
    of_study = [name for name in studies() if name in options]
    if of_study:
        return _study_grid(of_study, options)
    policies = options.get("policies", {})
    named = policies if isinstance(policies, dict) else {p: p for p in policies}
    if "kind" not in options.get("test", {}):
        raise KeyError("`kind` in `test` of a table `cells`")
    tuples = ("profiles", "seeds", "prior")
    lists = {name: tuple(options[name]) for name in tuples if name in options}
    _check_keys(options, Grid, {"study", "options"}, "in a table `cells`")
    return Grid(**{**options, **lists, "policies": named})


def _study_grid(names: Sequence[str], options: Options) -> Grid:
    """Return a grid of the only study in `names`, without a test and policies."""
    others = {name: x for name, x in options.items() if name != names[0]}
    others.pop("shows", None)
    known = ("profiles", "seeds")
    for name in others:
        if name not in known:
            raise ValueError(
                f"unknown key `{name}` in a table `cells` of the study `{names[0]}` "
                f"(keys are {', '.join((names[0], *known))})"
            )
    return Grid(
        study=names[0],
        options=options[names[0]],
        profiles=tuple(others.get("profiles", PROFILES)),
        seeds=tuple(others.get("seeds", ())),
    )
