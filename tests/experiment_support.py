"""What the tests of experiments share."""

import dataclasses

from sdm.experiments.catalogue import profiles
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import trains
from sdm.experiments.rows import VERSION
from sdm.experiments.spec import Experiment, Grid
from sdm.storage.provenance import provenance

TRAINED = {"sdm": "0.0", "commit": "0" * 12, "device": "another machine"}
SMALL = Grid(
    policies={"random": "random", "ce": "ce"},
    test={"kind": "mdp", "horizon": [4, 5]},
)


class Quiet:
    """A watcher that remembers."""

    def __init__(self):
        self.steps, self.rows, self.failures, self.cells = [], [], [], None

    def begin(self, cells, todo):
        """Keep how many are to be done."""
        assert todo <= cells
        self.cells = todo

    def step(self, cell, name, share, left):
        """Keep a step."""
        self.steps.append((cell.key, name, share, left))

    def done(self, cell, row, left):
        """Keep a row."""
        self.rows.append((row, left))

    def failed(self, cell, why):
        """Keep a failure."""
        self.failures.append(why)


def made_of(*grids, **options):
    """An experiment of these grids, with one seed unless they name others."""
    grids = tuple(dataclasses.replace(x, seeds=x.seeds or (0,)) for x in grids)
    about = {"title": "a", "paper": "", "question": "?", "x": "test.horizon"}
    return Experiment("made", grids=grids, x_title="T", **{**about, **options})


def change_profile(monkeypatch, name, **changes):
    """Give a profile other sizes; without a corner, all values of lists are taken."""
    sizes = {**profiles()[name], "corner": False, **changes}
    monkeypatch.setitem(profiles(), name, sizes)


def numbers(rows):
    """What may not depend on when and how often a run was stopped."""
    return [
        (row["key"], row["result"]["gap_percent"], row["result"]["agreement"])
        for row in rows
    ]


def fabricated(experiment, profile, gap=lambda cell: 1.0):
    """A row for every cell, as if it had been run."""
    rows = []
    for cell in cells(experiment, profile):
        row = {"version": VERSION, "experiment": experiment.name, "profile": profile}
        row |= {"key": cell.key, "policy": cell.policy, **cell.spec}
        row |= provenance(by_torch=False)
        row |= {"seconds": 2.0, "training": None, "finished": "2026-01-01T00:00:00Z"}
        if trains(cell):
            row["training"] = {"seconds": 1.5, "tokens": 4321, **TRAINED}
        if cell.study:
            row |= STUDIES[cell.learner](cell)
        else:
            found = gap(cell)
            row["result"] = {
                "gap_percent": found,
                "ci_low": found - 0.5,
                "ci_high": found + 0.5,
                "exact_gap_percent": found + 0.25,
            }
        rows.append(row)
    return rows


def theory_entries(cell):
    """Checks of the bound, one of which fails, at κ = 10."""
    one = {"train": 10, "gap": 1.0, "bound": 9.0, "holds": True}
    above = {"gap": 9.0, "bound": 4.5, "holds": False, "kappa": 10.0, "support": 20}
    found = [
        {**one, "kappa": kappa, "support": support}
        for kappa in (1.0, 10.0, 100.0)
        for support in (5, 160)
    ]
    return {"cells": [*found, {**one, **above}]}


STUDIES = {"theory": theory_entries}
