"""Cells whose language model learns the best logged episodes of its tasks."""

import dataclasses

import numpy as np
import pytest

from sdm.data.shards import read_shards
from sdm.data.solved_tasks import sample_tasks
from sdm.experiments.artifacts import Artifacts
from sdm.experiments.catalogue import experiments
from sdm.experiments.cell_configs import dataset_of
from sdm.experiments.grid_cells import cells
from sdm.experiments.origin import origin_of
from sdm.experiments.spec import ExperimentError


@pytest.fixture(scope="module")
def by_score():
    found = cells(experiments()["oracle-free"], "smoke")
    return {c.learn["score"]: c for c in found if c.learner == "imitate"}


def test_the_dataset_has_the_episodes_of_the_estimates(by_score, tmp_path):
    artifacts, data = Artifacts(tmp_path), {}
    for score, cell in by_score.items():
        folder = origin_of(cell).dataset(cell, artifacts)
        assert folder == origin_of(cell).dataset_folder(cell, artifacts)
        data[score] = read_shards(folder).to_pydict()
    config = dataset_of(by_score["return"])
    params = sample_tasks(0, config=config, size=config.tasks).params
    played = config.family.logged(params)
    for rows in data.values():
        assert len(rows["task"]) == 12 * 30
        assert sum(rows["random"]) == 12 * 24  # the best fifth is learned
        for task in range(12):
            mine = [i for i, each in enumerate(rows["task"]) if each == task]
            found = sorted((*rows["observation"][i], *rows["action"][i]) for i in mine)
            parts = (
                np.asarray(x)[task, :, :5] for x in (played.observation, played.action)
            )
            assert found == sorted(map(tuple, np.concatenate([*parts], -1).tolist()))
    assert data["return"]["action"] != data["regret"]["action"]


def test_the_run_says_what_it_learned_from(by_score, tmp_path):
    artifacts = Artifacts(tmp_path)
    names = {origin_of(c).folder(c, artifacts) for c in by_score.values()}
    assert len(names) == 2 and all("imitate-" in name.name for name in names)
    cell = by_score["return"]
    less = dataclasses.replace(cell, learn={**cell.learn, "best": 0.1})
    assert origin_of(less).folder(less, artifacts) not in names


def test_tasks_without_logs_are_refused(by_score, tmp_path):
    data = {"tasks": 12, "trajectories": 6}
    cell = dataclasses.replace(by_score["return"], data=data)
    with pytest.raises(ExperimentError, match="family `energy` has no logged episodes"):
        origin_of(cell).dataset(cell, Artifacts(tmp_path))
    family = {**by_score["return"].data, "length": 3}
    cell = dataclasses.replace(cell, data=family)
    with pytest.raises(ExperimentError, match="have 3 decisions, and the test has 5"):
        origin_of(cell).dataset(cell, Artifacts(tmp_path))
