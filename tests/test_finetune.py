"""Fine-tuning: what is trained on what, resumed as if never killed, and recorded."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM

from sdm.llm.bases import load_base, tiny_tokenizer
from sdm.llm.finetune import (
    finetune,
    last_checkpoint,
    prepare_model,
)
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.runs import load_run, save_run
from sdm.llm.serialize import SCHEMAS
from sdm.llm.texts import TrainingText
from sdm.llm.tokens import tokenise
from sdm.solvers_jax import EnergyFamily
from sdm.solvers_jax.oracle_data import OracleConfig, write_oracle_dataset
from sdm.solvers_jax.shards import DatasetError

# Of torch, transformers and bitsandbytes about themselves, nothing that we could mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*warn_only.*:UserWarning"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("oracle") / "data"
    write_oracle_dataset(OracleConfig(EnergyFamily(), 4, 24, 4, seed=1), folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small random Llama, as a user's own base would be."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def quick(data, base, **changes):
    options = {
        "schema": "compact",
        "texts_per_task": 2,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 1e-3,
    }
    return recipe(str(data), base, **(options | changes))


def test_the_masked_loss_is_the_one_computed_by_hand(base):
    model, tokenizer = load_base(base)
    text = TrainingText(0, "3a4c\n5b")
    row = tokenise(tokenizer, SCHEMAS["compact"], [text], loss="actions")[0]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    chances = output.logits[0].log_softmax(-1)
    places = [1, 3, 6]  # of a, c and b; each is predicted from the token before it
    wanted = -np.mean([float(chances[i - 1, ids[0, i]]) for i in places])
    assert float(output.loss) == pytest.approx(wanted, rel=1e-5)  # float32


def test_an_adapter_is_on_every_linear_layer_and_alone_is_trained(data, base):
    model, _ = prepare_model(quick(data, base))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    projections = {name.split(".lora_")[0].split(".")[-1] for name in trained}
    attention, mlp = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj"}
    assert projections == attention | mlp | {"down_proj"}


def test_training_lowers_the_loss_and_leaves_a_run_that_loads(data, base, tmp_path):
    steps = []
    report = finetune(
        quick(data, base, epochs=4, learning_rate=1e-2),
        tmp_path / "run",
        progress=lambda step, total: steps.append((step, total)),
    )
    assert len(report.eval_loss) == 4 and report.eval_loss[-1] < report.eval_loss[0]
    assert steps[-1] == (report.steps, report.steps) and report.tokens_per_second > 0
    run = load_run(tmp_path / "run")
    assert isinstance(run.model, PeftModel) and run.horizon == 4
    assert not (tmp_path / "run.partial").exists()


def test_the_run_folder_tells_everything_and_pickles_nothing(data, tmp_path):
    config = quick(data, "tiny")
    report = finetune(config, tmp_path / "run")
    folder = tmp_path / "run"
    header = yaml.safe_load((folder / "config.yaml").read_text())
    assert FinetuneConfig(**header["finetune"]) == config
    metrics = [
        json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [m["eval_loss"] for m in metrics if "eval_loss" in m]
    assert losses == report.eval_loss
    assert "torch" in json.loads((folder / "env.json").read_text())
    assert f"{report.train_loss:.4f}" in (folder / "README.md").read_text()
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in names and not names & {".bin", ".pt", ".pth", ".pkl"}


def test_the_saved_model_is_the_trained_one(data, tmp_path, monkeypatch):
    kept = {}

    def keep(folder, record, model, tokenizer):
        kept.update({name: p.clone() for name, p in model.state_dict().items()})
        save_run(folder, record, model, tokenizer)

    monkeypatch.setattr("sdm.llm.finetune.save_run", keep)
    finetune(quick(data, "tiny"), tmp_path / "run")
    loaded = load_run(tmp_path / "run").model.state_dict()
    assert loaded.keys() == kept.keys()
    for name, weight in kept.items():
        torch.testing.assert_close(loaded[name], weight, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_a_killed_run_resumes_to_the_same_loss(data, base, tmp_path, name):
    """With dropout, within an epoch, and with a checkpoint cut short beside it."""
    config = quick(data, base if name == "base" else "tiny", epochs=2)
    whole = finetune(config, tmp_path / "whole")

    def kill(step, total):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.llm.finetune.CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "cut", progress=kill)
    partial = tmp_path / "cut.partial"
    assert last_checkpoint(partial).endswith("checkpoint-9")
    (partial / "checkpoints" / "checkpoint-99").mkdir()
    with pytest.raises(DatasetError, match="unfinished run"):
        finetune(config, tmp_path / "cut")
    with pytest.raises(DatasetError, match="other options"):
        changed = dataclasses.replace(config, seed=9)
        finetune(changed, tmp_path / "cut", resume=True)
    first = []
    resumed = finetune(
        config, tmp_path / "cut", resume=True, progress=lambda s, _: first.append(s)
    )
    assert first[0] == 10
    # One device, the same order of operations: equal to the last bit.
    assert resumed.eval_loss == whole.eval_loss
    assert resumed.train_loss == whole.train_loss and resumed.steps == whole.steps
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [e["step"] for e in entries if "loss" in e] == [*range(1, whole.steps + 1)]
    seconds = [e["seconds"] for e in entries]
    assert seconds == sorted(seconds) and resumed.seconds == seconds[-1]


def test_training_that_diverges_says_so(data, tmp_path, monkeypatch):
    def broken(config):
        model, tokenizer = prepare_model(config)
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        return model, tokenizer

    monkeypatch.setattr("sdm.llm.finetune.prepare_model", broken)
    with pytest.raises(FloatingPointError, match="diverged"):
        finetune(quick(data, "tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_never_takes_the_place_of_its_data(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    with pytest.raises(DatasetError, match="would take the place of"):
        finetune(quick(copy, "tiny"), copy, overwrite=True)
    assert (copy / "manifest.json").exists()


def test_a_run_resumes_only_on_the_data_it_began_with(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    config = quick(copy, "tiny")

    def kill(step, total):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.llm.finetune.CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "run", progress=kill)
    made = OracleConfig(EnergyFamily(), 4, 24, 4, seed=5)
    write_oracle_dataset(made, copy, overwrite=True)
    with pytest.raises(DatasetError, match="other options"):
        finetune(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", ["cut weights", "no horizon", "odd option", "text"])
def test_a_damaged_run_is_named(data, tmp_path, damage):
    run = tmp_path / "run"
    finetune(quick(data, "tiny"), run)
    config = run / "config.yaml"
    if damage == "cut weights":
        (weights,) = run.rglob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no horizon":
        header = yaml.safe_load(config.read_text())
        del header["horizon"]
        config.write_text(yaml.safe_dump(header))
    elif damage == "odd option":
        config.write_text(config.read_text().replace("epochs", "epoch"))
    else:
        config.write_bytes(b"\xff\xfe just text")
    with pytest.raises(DatasetError, match="damaged"):
        load_run(run)


def test_nf4_trains_an_adapter_on_a_frozen_base(data, base, tmp_path):
    config = quick(data, base, quantize="nf4", epochs=3, learning_rate=1e-2)
    model, _ = prepare_model(config)
    kinds = {type(m).__name__ for m in model.modules()}
    assert "Linear4bit" in kinds
    report = finetune(config, tmp_path / "run")
    assert report.eval_loss[-1] < report.eval_loss[0]
    assert isinstance(load_run(tmp_path / "run").model, PeftModel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": 4}, "need 5 trajectories"),
        ({"tasks": 99}, "99 tasks are asked for: .* has 24"),
        ({"tasks": 1}, "tasks = 1"),
        ({"epochs": 0}, "epochs = 0"),
        ({"support": -1}, "support = -1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate = inf"),
        ({"quantize": "nf4"}, "not quantised"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(
    data, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        finetune(quick(data, "tiny", **changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())
