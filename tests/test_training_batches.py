"""Batches, and losses that depend on neither their size nor the number of processes."""

import dataclasses
import json
import os
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from plain_schemas import COMPACT
from torch.utils.data import BatchSampler
from training_support import QUIET, quick, write_base, write_data
from transformers import LlamaForCausalLM

from sdm.llm.bases import load_base
from sdm.llm.batching import ResumableTrainer, ShuffledByEpoch, with_blanks
from sdm.llm.finetune import finetune
from sdm.llm.runs import load_run
from sdm.llm.texts import TrainingText
from sdm.llm.tokens import IGNORED, tokenise
from sdm.llm.training import make_trainer

pytestmark = QUIET


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("oracle") / "data")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Seven training tasks and one validation task."""
    return write_data(tmp_path_factory.mktemp("few") / "data", tasks=8)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def losses_of(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [e["loss"] for e in map(json.loads, lines) if "loss" in e]


@pytest.mark.parametrize("loss", ["all", "actions"])
def test_the_validation_loss_is_a_mean_over_labels(data, base, tmp_path, loss):
    """Of texts of very different lengths and losses, whatever their batches."""
    model, tokenizer = load_base(base)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 50
    texts = [TrainingText(0, "3a4c1b" * n) for n in (1, 9, 2, 5, 1)]
    rows = tokenise(tokenizer, COMPACT, texts, loss=loss)
    total, count = 0.0, 0
    for row in rows:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        with torch.no_grad():
            chances = model(ids[None]).logits[0, :-1].log_softmax(-1)
        learned = labels[1:] != IGNORED
        total -= float(chances[learned].gather(1, labels[1:][learned][:, None]).sum())
        count += int(learned.sum())
    for accumulate, size in ((1, 8), (4, 8), (1, 1)):
        config = quick(data, base, accumulate=accumulate, batch_size=size)
        trainer = make_trainer(
            config, tmp_path, 1, model, tokenizer, (rows, rows), lambda *_: None
        )
        # float32, in another order of summation.
        found = trainer.evaluate()["eval_loss"]
        assert found == pytest.approx(total / count, rel=1e-5)


@pytest.mark.slow
def test_validation_needs_no_more_memory_than_a_training_step(
    data, base, tmp_path, monkeypatch
):
    """Its batches are no larger than micro-batches, and no logits are kept."""
    sizes, kept = {True: set(), False: set()}, []

    def compute_loss(self, model, inputs, *args, **options):
        sizes[model.training].add(len(inputs["input_ids"]))
        return original(self, model, inputs, *args, **options)

    def prediction_step(self, *args, **options):
        kept.append(step(self, *args, **options)[1:])
        return step(self, *args, **options)

    original, step = ResumableTrainer.compute_loss, ResumableTrainer.prediction_step
    monkeypatch.setattr(ResumableTrainer, "compute_loss", compute_loss)
    monkeypatch.setattr(ResumableTrainer, "prediction_step", prediction_step)
    config = quick(data, base, held_out=0.3, accumulate=4, epochs=1)
    finetune(config, tmp_path / "run")
    assert max(sizes[True]) == max(sizes[False]) == 2
    assert set(kept) == {(None, None)}


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides():
    order, again, other = (ShuffledByEpoch(50, seed, blanks=2) for seed in (3, 3, 4))
    first = list(order)
    assert sorted(first) == list(range(52)) and first[50:] == [50, 51]
    assert first[:50] != sorted(first[:50]) and first != list(other)
    assert first == list(again)
    order.set_epoch(1)
    assert sorted(order) == list(range(52)) and list(order) != first


@pytest.mark.parametrize("texts", [1, 5, 7, 8, 9])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_several_processes_take_the_texts_that_one_takes(texts, accumulate):
    """In every optimizer step, blank texts aside."""
    lengths, together, processes = [*range(1, texts + 1)], 4, 2
    rows = {"input_ids": [[3] * n for n in lengths], "length": lengths}
    dataset = Dataset.from_dict(rows | {"labels": rows["input_ids"]})
    padded = with_blanks(dataset, together)
    assert padded[:texts] == dataset[:] and len(padded) % together == 0
    for blank in padded.to_list()[texts:]:
        assert blank == {"input_ids": [3], "labels": [IGNORED], "length": 1}

    blanks, share = len(padded) - texts, together // processes // accumulate
    order = ShuffledByEpoch(texts, seed=0, blanks=blanks)
    shards = [
        list(BatchSamplerShard(BatchSampler(order, share, False), processes, index))
        for index in range(processes)
    ]
    assert len(shards[0]) == len(shards[1])
    alone = list(ShuffledByEpoch(texts, seed=0))
    for i in range(0, len(shards[0]), accumulate):
        taken = chain(
            *(batch for shard in shards for batch in shard[i : i + accumulate])
        )
        own, alone = alone[:together], alone[together:]
        assert sorted(text for text in taken if text < texts) == sorted(own)
    assert not alone


@pytest.mark.slow
def test_an_incomplete_batch_in_micro_batches_learns_the_same(
    few, base, tmp_path, monkeypatch
):
    """Also with a model that averages the loss over its own labels."""
    config = quick(few, base, texts_per_task=1, batch_size=4, lora_dropout=0.0)
    finetune(config, tmp_path / "whole")
    wanted = losses_of(tmp_path / "whole")
    for own in (False, True):
        if own:
            monkeypatch.setattr(
                LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False
            )
        parts = dataclasses.replace(config, accumulate=2)
        finetune(parts, tmp_path / str(own))
        # The same sums in another order, in single precision.
        assert losses_of(tmp_path / str(own)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_learn_what_one_learns_of_an_incomplete_batch(
    few, base, tmp_path, accumulate
):
    """Seven texts in batches of four: the last text of the second is blank."""
    config = quick(few, base, texts_per_task=1, batch_size=4, lora_dropout=0.0)
    alone = finetune(config, tmp_path / "alone")
    options = [f"--data={few}", f"--base={base}", f"--accumulate={accumulate}"]
    options += ["--schema=compact", "--texts-per-task=1", "--epochs=2", "--json"]
    options += ["--batch-size=4", "--learning-rate=1e-3", "--lora-dropout=0"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "sdm.cli", "finetune", *options]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'both'}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert (report["processes"], report["steps"]) == (2, alone.steps)
    # The same sums in another order, in single precision.
    wanted = losses_of(tmp_path / "alone")
    assert losses_of(tmp_path / "both") == pytest.approx(wanted, rel=1e-5)
    assert report["eval_loss"] == pytest.approx(alone.eval_loss, rel=1e-5)
    kept = [load_run(tmp_path / name).model.state_dict() for name in ("alone", "both")]
    for name, weight in kept[0].items():
        # AdamW divides slopes by their size, which enlarges the rounding of small ones.
        torch.testing.assert_close(kept[1][name], weight, rtol=0, atol=2e-4)
    assert np.isfinite(wanted).all()
