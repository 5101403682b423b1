"""The gap in validation tasks, which chooses the weights of a run."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_support import QUIET, quick, write_data

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.shards import read_shards
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.llm import finetune as finetune_module
from sdm.llm.finetune import finetune
from sdm.llm.tiny import tiny_model, tiny_tokenizer
from sdm.llm.training_data import read_training_data
from sdm.llm.validation_gap import ValidationGap, validation_bed
from sdm.tasks.families.energy import EnergyFamily

pytestmark = QUIET


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("oracle") / "data", tasks=40)


@pytest.mark.slow
def test_the_tasks_are_those_held_out_with_random_numbers_of_their_own(data):
    config = quick(data, "tiny", eval_gap=3)
    held_out = read_training_data(config).validation_tasks
    assert len(held_out) == 4
    bed = validation_bed(config, held_out[:3])
    table = read_shards(data).to_pylist()
    params = {row["task"]: row["parameters"]["p"] for row in table}
    wanted = [params[task] for task in held_out[:3]]
    np.testing.assert_allclose(np.asarray(bed.tasks.params["p"]), wanted, rtol=1e-6)
    values = {row["task"]: row["value"] for row in table}
    found = np.asarray(bed.solution.value)
    np.testing.assert_allclose(found, [values[t] for t in held_out[:3]], rtol=1e-6)
    test = make_benchmark(EvaluationConfig(EnergyFamily(), 4, 3, 10, seed=1))
    assert (np.asarray(bed.support.action) != np.asarray(test.support.action)).any()
    assert not (bed.keys == test.keys).any()
    shown = {}
    for kind in ("optimal", "random", "all"):
        config = quick(data, "tiny", eval_gap=3, demonstrations=kind)
        other = validation_bed(config, held_out[:3])
        shown[kind] = np.asarray(other.support.action).tolist()
    assert shown["optimal"] == shown["all"] == np.asarray(bed.support.action).tolist()
    assert shown["random"] != shown["optimal"]
    assert evaluate_untrained("oracle", bed).gap.mean == 0


@pytest.mark.slow
def test_the_weights_with_the_smallest_regret_are_kept(data, tmp_path, monkeypatch):
    """Regrets are replaced by ones that are smallest in the fourth validation."""
    regrets = iter([5.0, 4.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    seen = []

    class Gap(ValidationGap):
        def __call__(self, model):
            found = super().__call__(model)
            assert set(found) == {"gap", "regret"} and 0 <= found["regret"] < 150
            seen.append({k: x.clone() for k, x in model.state_dict().items()})
            return {"gap": found["gap"], "regret": next(regrets)}

    monkeypatch.setattr(finetune_module, "ValidationGap", Gap)
    config = quick(data, "tiny", eval_gap=2, epochs=5, batch_size=4)
    report = finetune(config, tmp_path / "run")
    assert len(report.eval_gap) == len(report.eval_loss) == len(seen) == 10
    assert all(0 <= gap < 150 for gap in report.eval_gap)
    kept = load_file(tmp_path / "run" / "model" / "model.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, seen[3][name])
    assert any(not torch.equal(kept[name], seen[9][name]) for name in kept)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    beside = [x for x in logged if "eval_gap" in x]
    assert len(beside) == 10 and all("eval_loss" in x for x in beside)


@pytest.mark.slow
def test_the_last_weights_are_validated_too(data, tmp_path, monkeypatch):
    """Ten validations would end before the last step if it were not added."""

    class Gap(ValidationGap):
        def __call__(self, model):
            return {"gap": 1.0, "regret": 1.0}

    monkeypatch.setattr(finetune_module, "ValidationGap", Gap)
    options = {"texts_per_task": 3, "batch_size": 5, "epochs": 1}
    config = quick(data, "tiny", eval_gap=2, **options)
    report = finetune(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [x["step"] for x in map(json.loads, lines) if "eval_gap" in x]
    every = steps[0]
    assert every > 1 and report.steps % every
    assert steps == [*range(every, report.steps, every), report.steps]


@pytest.mark.slow
def test_the_gap_is_that_of_the_model(data):
    """The gap of random weights is that of evaluating their policy, and repeats."""
    config = quick(data, "tiny", eval_gap=4)
    part = read_training_data(config)
    gap = ValidationGap(config, part.validation_tasks, part.schema, tiny_tokenizer())
    one, again, other = (gap(tiny_model(seed)) for seed in (0, 0, 3))
    assert one == again and one != other
    assert one["gap"] > 10, "random weights play badly"


def test_more_tasks_than_are_held_out_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="eval_gap = 9: must be at most 4"):
        finetune(quick(data, "tiny", eval_gap=9), tmp_path / "run")
    with pytest.raises(ValueError, match="eval_gap = -1: must be a whole number"):
        quick(data, "tiny", eval_gap=-1)
