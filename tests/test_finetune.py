"""Fine-tuning: what is trained on what, resumed as if never killed, and recorded."""

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from plain_schemas import COMPACT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from training_support import QUIET, SMALL, quick, write_base, write_data
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shards import read_manifest, read_shards
from sdm.evaluation.evaluate import check_policy, evaluate
from sdm.llm.acting import language_model_policy
from sdm.llm.bases import load_base
from sdm.llm.batching import ResumableTrainer
from sdm.llm.context import ContextError
from sdm.llm.episode import Episode
from sdm.llm.finetune import finetune
from sdm.llm.memory import OutOfMemoryError
from sdm.llm.merge import merge
from sdm.llm.recipes import FinetuneConfig, recipe
from sdm.llm.run_folder import default_schema, read_merged, read_run
from sdm.llm.runs import load_run
from sdm.llm.texts import TrainingText
from sdm.llm.tiny import TINY_CHARACTERS, tiny_model, tiny_tokenizer
from sdm.llm.tokens import tokenise
from sdm.llm.training import last_checkpoint, prepare_model, training_arguments
from sdm.solvers_jax import DarkroomFamily, EnergyFamily
from sdm.storage.files import StorageError

pytestmark = QUIET


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("oracle") / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a small random Llama."""
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def finished(data, base, tmp_path_factory):
    """Runs of `tiny` and of an adapter on `base`; copy one before harming it."""
    folder = tmp_path_factory.mktemp("runs")
    finetune(quick(data, "tiny", epochs=1), folder / "tiny")
    finetune(quick(data, base, epochs=1), folder / "adapter")
    return folder


def test_the_masked_loss_is_the_one_computed_by_hand(base):
    model, tokenizer = load_base(base)
    text = TrainingText(0, "3a4c\n5b")
    row = tokenise(tokenizer, COMPACT, [text], loss="actions")[0]
    ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
    with torch.no_grad():
        output = model(input_ids=ids, labels=labels)
    chances = output.logits[0].log_softmax(-1)
    places = [1, 3, 6]  # of a, c and b; each is predicted from the token before it
    wanted = -np.mean([float(chances[i - 1, ids[0, i]]) for i in places])
    assert float(output.loss) == pytest.approx(wanted, rel=1e-5)  # float32


@pytest.mark.slow
def test_texts_of_a_batch_do_not_see_each_other(data, base, tmp_path, monkeypatch):
    """In the very batches of a training: each text as if it stood alone."""
    batches = []

    def compute_loss(self, model, inputs, *args, **options):
        if model.training:
            batches.append({k: x.clone() for k, x in inputs.items()})
        return original(self, model, inputs, *args, **options)

    original = ResumableTrainer.compute_loss
    monkeypatch.setattr(ResumableTrainer, "compute_loss", compute_loss)
    finetune(quick(data, base, schema="paper"), tmp_path / "run")
    model = load_base(base)[0].eval()
    masks = [batch["attention_mask"] for batch in batches]
    ragged = batches[[bool((mask == 0).any()) for mask in masks].index(True)]
    with torch.no_grad():
        together = model(ragged["input_ids"], ragged["attention_mask"]).logits
        for row, mask in enumerate(ragged["attention_mask"].bool()):
            alone = model(ragged["input_ids"][row][mask][None]).logits[0]
            # float32, in another order of summation.
            torch.testing.assert_close(together[row][mask], alone, rtol=0, atol=1e-5)
    assert (ragged["labels"][ragged["attention_mask"] == 0] == -100).all()


def test_an_adapter_is_on_every_linear_layer_and_alone_is_trained(data, base):
    model, _ = prepare_model(quick(data, base))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    projections = {name.split(".lora_")[0].split(".")[-1] for name in trained}
    attention, mlp = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj"}
    assert projections == attention | mlp | {"down_proj"}


@pytest.mark.slow
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
    assert isinstance(run.model, PeftModel) and run.header.horizon == 4
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
    assert "torch" in json.loads((folder / "env.json").read_text())["versions"]
    assert f"{report.train_loss:.4f}" in (folder / "README.md").read_text()
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert ".safetensors" in names and not names & {".bin", ".pt", ".pth", ".pkl"}


@pytest.mark.slow
def test_the_saved_model_is_the_trained_one(data, tmp_path, monkeypatch):
    kept = {}

    class Keeping(ResumableTrainer):
        def train(self, **options):
            super().train(**options)
            state = self.model.state_dict()
            kept.update({name: p.clone() for name, p in state.items()})

    monkeypatch.setattr("sdm.llm.training.ResumableTrainer", Keeping)
    finetune(quick(data, "tiny"), tmp_path / "run")
    loaded = load_run(tmp_path / "run").model.state_dict()
    assert loaded.keys() == kept.keys()
    for name, weight in kept.items():
        torch.testing.assert_close(loaded[name], weight, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "base"])
def test_a_killed_run_resumes_to_the_same_loss(data, base, tmp_path, name):
    """With dropout, within an epoch, and with a checkpoint cut short beside it."""
    config = quick(data, base if name == "base" else "tiny", epochs=2)
    whole = finetune(config, tmp_path / "whole")

    def kill(step, total):
        if step == 10:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.llm.reporter.CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "cut", progress=kill)
    partial = tmp_path / "cut.partial"
    assert last_checkpoint(partial).endswith("checkpoint-9")
    (partial / "checkpoints" / "checkpoint-99").mkdir()
    with pytest.raises(StorageError, match="unfinished run"):
        finetune(config, tmp_path / "cut")
    with pytest.raises(StorageError, match="other options"):
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
    def broken(config, check):
        model, tokenizer = prepare_model(config, check)
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
    with pytest.raises(StorageError, match="would replace the input"):
        finetune(quick(copy, "tiny"), copy, overwrite=True)
    assert read_manifest(copy)["tasks"] == 24


@pytest.mark.slow
def test_a_run_resumes_only_on_the_data_it_began_with(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    config = quick(copy, "tiny")

    def kill(step, total):
        if step > 1:  # the first checkpoint is there
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdm.llm.reporter.CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            finetune(config, tmp_path / "run", progress=kill)
    made = OracleConfig(EnergyFamily(), 4, 24, 4, seed=5)
    write_oracle_dataset(made, copy, overwrite=True)
    with pytest.raises(StorageError, match="other options"):
        finetune(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize("damage", ["cut weights", "no horizon", "odd option", "text"])
def test_a_damaged_run_is_named(finished, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(finished / "tiny", run)
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
    with pytest.raises(StorageError, match="damaged"):
        load_run(run)


@pytest.mark.slow
def test_nf4_trains_an_adapter_on_a_frozen_base(data, base, tmp_path):
    config = quick(data, base, quantize="nf4", epochs=3, learning_rate=1e-2)
    model, _ = prepare_model(config)
    kinds = {type(m).__name__ for m in model.modules()}
    assert "Linear4bit" in kinds
    with pytest.warns(UserWarning, match="no GPU: AdamW replaces paged AdamW"):
        report = finetune(config, tmp_path / "run")
    assert report.eval_loss[-1] < report.eval_loss[0]
    assert isinstance(load_run(tmp_path / "run").model, PeftModel)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": 4}, "need 5 trajectories"),
        ({"tasks": 99}, "tasks = 99: must be at most the 24 in"),
        ({"tasks": 1}, "tasks = 1"),
        ({"demonstrations": "all"}, "demonstrations all` needs random episodes"),
        ({"queries": "all"}, "queries all` needs random episodes"),
        ({"from_scratch": True, "lora_rank": 4}, "from_scratch trains all weights"),
        ({"epochs": 0}, "epochs = 0"),
        ({"support": -1}, "support = -1"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate = inf"),
        ({"initializer_range": 0.0}, "initializer_range = 0.0"),
        ({"quantize": "nf4"}, "a quantized base needs an adapter"),
        ({"quantize": "nf4", "lora_rank": 2}, "cannot be quantized"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_nothing_is_written(
    data, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        finetune(quick(data, "tiny", **changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_only_random_weights_have_a_deviation(base):
    with pytest.raises(ValueError, match=r"initializer_range = 0\.3: has no effect"):
        recipe("data", base, initializer_range=0.3)
    config = recipe("data", base, initializer_range=0.3, from_scratch=True)
    model, _ = prepare_model(config)
    found = model.get_input_embeddings().weight[1:].std().item()
    # Of 64 times some forty numbers: the relative error of a deviation is 1.4 %.
    assert found == pytest.approx(0.3, rel=0.07)


@pytest.mark.slow
def test_a_batch_in_pieces_or_with_checkpointing_learns_the_same(data, base, tmp_path):
    config = quick(data, base, lora_dropout=0.0, epochs=1)
    whole = finetune(config, tmp_path / "whole")
    for name, changes in (
        ("pieces", {"accumulate": 4}),
        ("checkpointing", {"gradient_checkpointing": True}),
    ):
        found = finetune(dataclasses.replace(config, **changes), tmp_path / name)
        # The same sums in another order, in single precision.
        assert found.train_loss == pytest.approx(whole.train_loss, rel=1e-5)
        assert found.steps == whole.steps


def test_a_batch_that_cannot_be_shared_out_is_refused(data, base, tmp_path):
    with pytest.raises(ValueError, match="batch_size = 8: must be a multiple of"):
        finetune(quick(data, base, accumulate=3), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def two_processes(program, options, out, environment):
    """The report of a run that two processes share."""
    options += ["--schema=compact", "--texts-per-task=2", "--epochs=2"]
    options += ["--batch-size=4", "--learning-rate=1e-3", "--lora-dropout=0"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", *program, "finetune", *options),
            *(f"--out={out}", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(data, base, tmp_path):
    """Each takes half of each batch; dropout is off, since it would differ."""
    config = quick(data, base, lora_dropout=0.0, batch_size=4)
    alone = finetune(config, tmp_path / "alone")
    report = two_processes(
        ["-m", "sdm.cli"],
        [f"--data={data}", f"--base={base}"],
        tmp_path / "both",
        {"OMP_NUM_THREADS": "1"},
    )
    assert report["steps"] == alone.steps
    # The same sums in another order, in single precision.
    assert report["train_loss"] == pytest.approx(alone.train_loss, rel=1e-4)
    assert report["eval_loss"] == pytest.approx(alone.eval_loss, rel=1e-3)
    # A step of AdamW divides a slope by its size: where a slope is hardly more than
    # rounding, its step, of at most 1e-3, differs by a share of that.
    kept = [load_run(tmp_path / name).model.state_dict() for name in ("alone", "both")]
    for name, weight in kept[0].items():
        torch.testing.assert_close(kept[1][name], weight, rtol=0, atol=2e-4)


# What lets Accelerate share out a model over processes without accelerators.
SHARDED_ON_CPU = """
import accelerate.state as state
begin = state.AcceleratorState.__init__
def shard(self, *args, fsdp_plugin=None, **options):
    begin(self, *args, fsdp_plugin=fsdp_plugin, **options)
    if fsdp_plugin is not None:
        self.distributed_type = state.DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin
        state.PartialState._shared_state["distributed_type"] = self.distributed_type
state.AcceleratorState.__init__ = shard
from sdm.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no GPU:UserWarning")
@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_two_processes_with_half_of_the_model_each_learn_what_one_learns(
    data, base, tmp_path, quantize
):
    """The 4-bit one in two pieces and with checkpointing, as Llama-2-7B is trained."""
    (tmp_path / "sharded.py").write_text(SHARDED_ON_CPU)
    options = {"lora_dropout": 0.0, "batch_size": 4}
    less = ["--gradient-checkpointing", "--accumulate=2"] * (quantize == "nf4")
    alone = finetune(
        quick(data, base, quantize=quantize, **options), tmp_path / "alone"
    )
    environment = {
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    }
    report = two_processes(
        [str(tmp_path / "sharded.py")],
        [f"--data={data}", f"--base={base}", f"--quantize={quantize}", *less],
        tmp_path / "both",
        environment,
    )
    # The same sums in another order, in single precision.
    assert report["train_loss"] == pytest.approx(alone.train_loss, rel=1e-4)
    assert report["eval_loss"] == pytest.approx(alone.eval_loss, rel=1e-3)
    # A step of AdamW divides a slope by its size: where a slope is hardly more than
    # rounding, its step, of at most 1e-3, differs by a share of that.
    kept = [load_run(tmp_path / name).model.state_dict() for name in ("alone", "both")]
    for name, weight in kept[0].items():
        torch.testing.assert_close(kept[1][name], weight, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_a_run_that_is_killed_resumes(data, tmp_path):
    """SIGKILL, whatever it is at, twice; the third time it is let be."""
    options = [f"--data={data}", "--base=tiny", "--texts-per-task=2", "--json"]
    options += ["--batch-size=4", "--epochs=3"]
    code = "import sdm.llm.reporter as r; r.CHECKPOINT_SECONDS = 0.0; "
    code += "from sdm.cli import main; main()"

    def command(out, *more):
        start = [sys.executable, "-c", code, "finetune", f"--out={tmp_path / out}"]
        return subprocess.Popen([*start, *options, *more], **PIPES)

    whole = json.loads(command("whole").communicate(timeout=120)[0])
    for least in (3, 15):
        run = command("cut", *(["--resume"] if least > 3 else []))
        folder = tmp_path / "cut.partial" / "checkpoints"
        while run.poll() is None and not [
            p for p in folder.glob("*") if int(p.name.split("-")[1]) >= least
        ]:
            time.sleep(0.02)
        assert run.poll() is None, run.communicate()
        run.kill()
        run.communicate()
    found = json.loads(command("cut", "--resume").communicate(timeout=120)[0])
    assert found["train_loss"] == whole["train_loss"]
    assert found["eval_loss"] == whole["eval_loss"]


@pytest.mark.slow
def test_a_run_cut_short_while_it_is_finished_resumes(
    data, base, tmp_path, monkeypatch
):
    config = quick(data, base)
    whole = finetune(config, tmp_path / "whole")

    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sdm.llm.finetune.save_run", full)
        with pytest.raises(OSError, match="no space"):
            finetune(config, tmp_path / "cut")
    found = finetune(config, tmp_path / "cut", resume=True)
    assert found.eval_loss == whole.eval_loss
    weights = [load_run(tmp_path / x).model.state_dict() for x in ("cut", "whole")]
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=0, atol=0)
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_the_best_weights_are_kept_not_the_last(data, base, tmp_path, monkeypatch):
    """As if each epoch after the second did worse; two checkpoints are kept."""
    weights = []

    def evaluate(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        weights.append({n: p.clone() for n, p in self.model.named_parameters()})
        found["eval_loss"] = [2.0, 1.0, 3.0, 4.0][len(weights) - 1]
        return found

    original = ResumableTrainer.evaluate
    monkeypatch.setattr(ResumableTrainer, "evaluate", evaluate)
    for rank in (4, 0):
        weights.clear()
        config = quick(data, base, epochs=4, lora_rank=rank)
        finetune(config, tmp_path / str(rank))
        kept = dict(load_run(tmp_path / str(rank)).model.named_parameters())
        for name, weight in kept.items():
            torch.testing.assert_close(weight, weights[1][name], rtol=0, atol=0)
        assert any((weights[3][n] != w).any() for n, w in kept.items())


def test_metrics_are_kept_for_tensorboard_where_asked(data, base, tmp_path):
    finetune(quick(data, base), tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    logged = [json.loads(line) for line in text.splitlines()]
    losses = [entry["loss"] for entry in logged if "loss" in entry]
    # TensorBoard keeps single precision.
    found = [event.value for event in events.Scalars("train/loss")]
    assert found == pytest.approx(losses, rel=1e-6)
    assert "eval/loss" in events.Tags()["scalars"]


def test_memory_that_runs_out_says_what_to_lower(data, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr("sdm.llm.training.ResumableTrainer.train", full)
    with pytest.raises(OutOfMemoryError, match="Tried to allocate 9 GiB") as error:
        finetune(quick(data, "tiny"), tmp_path / "run")
    assert "--accumulate" in error.value.hint


def test_a_text_that_is_too_long_says_how_long_it_is(data, base, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(base, short)
    config = json.loads((short / "config.json").read_text())
    config["max_position_embeddings"] = 20
    (short / "config.json").write_text(json.dumps(config))
    with pytest.raises(ContextError, match="context of 20 tokens, found 26"):
        finetune(quick(data, str(short)), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["short"]


@pytest.mark.slow
def test_a_tokeniser_without_a_needed_character_is_refused(data, tmp_path):
    base = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(base)
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<unk>", *"0123456789ab"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(base)
    with pytest.raises(ValueError, match="has no token for 'c', which the schema"):
        finetune(quick(data, str(base)), tmp_path / "run")
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), 3, 2, 1))
    with pytest.raises(ValueError, match="no token for 'c'"):
        language_model_policy(f"icl:{base}", bed, schema="compact")
    # The sign of a reward must be read, too.
    signless = [c for c in TINY_CHARACTERS if c != "-"]
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<unk>", *signless])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(base)
    with pytest.raises(ValueError, match="no token for '-'"):
        finetune(quick(data, str(base), schema="paper"), tmp_path / "run")
    # Byte-level pieces without an unknown token leave out what they lack.
    letters = {c: i for i, c in enumerate("0123456789ab\u010a")}
    dropping = Tokenizer(models.BPE(letters, []))
    dropping.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=dropping).save_pretrained(base)
    with pytest.raises(ValueError, match="no token for 'c'"):
        finetune(quick(data, str(base)), tmp_path / "run")


@pytest.mark.slow
def test_a_tokenizer_that_ends_texts_learns_and_plays_the_same(data, tmp_path):
    """Its end token was a part of every candidate action."""
    ending = tiny_tokenizer()
    ending.add_special_tokens({"eos_token": "</s>"})
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ending.eos_token_id)]
    )
    bed, rows = make_benchmark(EvaluationConfig(EnergyFamily(), 4, 2, 2)), []
    for name, tokenizer in (("plain", tiny_tokenizer()), ("ending", ending)):
        base = write_base(tmp_path / name, tokenizer=tokenizer)
        config = quick(data, base, lora_rank=0, learning_rate=1e-2)
        report = finetune(config, tmp_path / f"{name}-run")
        (found,) = evaluate([str(tmp_path / f"{name}-run")], bed)
        rows.append((report.eval_loss, found.return_mean, found.invalid_mass))
    assert rows[0] == rows[1] and rows[1][2] < 0.9


@pytest.mark.slow
def test_an_adapter_on_another_base_is_refused(data, base, tmp_path):
    other = tmp_path / "base"
    shutil.copytree(base, other)
    finetune(quick(data, str(other), epochs=1), tmp_path / "run")
    LlamaForCausalLM(LlamaConfig(**SMALL | {"hidden_size": 32})).save_pretrained(other)
    with pytest.raises(StorageError, match=r"does not fit its base .* is .* found"):
        load_run(tmp_path / "run")
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(other)
    with pytest.raises(StorageError, match="trained on other weights than those"):
        load_run(tmp_path / "run")


@pytest.mark.slow
def test_an_adapter_of_tiny_is_on_the_weights_of_its_seed(data, tmp_path):
    options = {"lora_rank": 2, "lora_dropout": 0.0, "seed": 3, "epochs": 1}
    finetune(recipe(str(data), "tiny", **options), tmp_path / "run")
    found = load_run(tmp_path / "run").model.get_input_embeddings().weight
    assert torch.equal(found, tiny_model(3).get_input_embeddings().weight)


def test_a_run_remembers_where_its_base_is(data, base, monkeypatch):
    monkeypatch.chdir(Path(base).parent)
    assert quick(data, Path(base).name).base == str(Path(base).resolve())
    assert quick(data, "smollm2").base == "smollm2"
    assert quick(data, "owner/model").base == "owner/model"


def test_a_base_that_is_no_language_model_is_refused(data, finished, tmp_path):
    (tmp_path / "empty").mkdir()
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=8, patch_size=4, intermediate_size=32, **small)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    small = {**small, "intermediate_size": 32, "vocab_size": 64}
    for kind in (BertModel, BertForMaskedLM):
        kind(BertConfig(**small)).save_pretrained(tmp_path / kind.__name__)
    LlamaModel(LlamaConfig(**SMALL)).save_pretrained(tmp_path / "headless")
    config = LlamaConfig(**SMALL | {"vocab_size": 9})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    T5Model(
        T5Config(d_model=32, d_ff=32, num_layers=1, d_kv=8, vocab_size=64)
    ).save_pretrained(tmp_path / "T5")
    headed = json.loads((tmp_path / "headless/config.json").read_text())
    headed["architectures"] = ["LlamaForCausalLM"]
    headed["tie_word_embeddings"] = False
    (tmp_path / "lacking").mkdir()
    for file in (tmp_path / "headless").iterdir():
        shutil.copy(file, tmp_path / "lacking")
    (tmp_path / "lacking/config.json").write_text(json.dumps(headed))
    shutil.copytree(finished / "tiny", tmp_path / "a-run")
    for name, words in {
        "empty": "is not a base: it has no config.json",
        "vit": "is not a base: it has no tokenizer",
        "a-run": "is a run folder, not a base",
        "BertModel": "not a causal language model, found a BertModel",
        "BertForMaskedLM": "not a causal language model, found a BertForMaskedLM",
        "T5": "not a causal language model",
        "headless": "not a causal language model, found a LlamaModel",
        "lacking": "1 weights of a causal .* missing, such as lm_head.weight",
        "small": "at most 9 tokens, .* found 49",
    }.items():
        if name not in ("empty", "vit", "a-run"):
            tiny_tokenizer().save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=words):
            finetune(quick(data, str(tmp_path / name)), tmp_path / "run")
    with pytest.raises(ValueError, match="unknown base ``"):
        finetune(quick(data, ""), tmp_path / "run")
    assert not (tmp_path / "run.partial").exists()


def test_what_is_wrong_is_said_before_a_model_is_loaded(data, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("loaded")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr("sdm.llm.training.load_base", never)
    for changes, words in (
        ({}, "exists already"),
        ({"accumulate": 3}, "batch_size = 8: must be a multiple of"),
    ):
        with pytest.raises(ValueError, match=words):
            finetune(quick(data, "tiny", **changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("adapter/tokenizer.json", "has no tokenizer.json"),
        ("adapter/adapter_config.json", "has no adapter_config.json"),
        ("adapter/adapter_model.safetensors", "has no weights"),
    ],
)
def test_a_run_that_is_not_whole_is_known_before_it_plays(
    finished, tmp_path, file, words
):
    shutil.copytree(finished / "adapter", tmp_path / "run")
    for path in (tmp_path / "run").glob(f"{Path(file).parent}/{Path(file).stem}*"):
        path.unlink()
    with pytest.raises(StorageError, match=words):
        check_policy(str(tmp_path / "run"), EvaluationConfig(EnergyFamily(), 3, 2, 1))


def test_a_damaged_configuration_is_known_before_it_plays(finished, tmp_path):
    shutil.copytree(finished / "tiny", tmp_path / "run")
    config = tmp_path / "run/config.yaml"
    whole = config.read_text()
    for old, new in (("compact", "poem"), ("lora_rank: 0", "lora_rank: sixteen")):
        config.write_text(whole.replace(old, new))
        with pytest.raises(
            StorageError, match=r"(?s)config.yaml` is damaged: .*(schema|lora)"
        ):
            read_run(tmp_path / "run")


def test_another_version_of_a_run_or_of_a_merged_model_is_refused(finished, tmp_path):
    run, merged = tmp_path / "run", tmp_path / "merged"
    merge(finished / "tiny", merged)
    shutil.copytree(finished / "tiny", run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("run_version: 4", "run_version: 3"))
    with pytest.raises(
        StorageError, match=r"run`: run version 3, expected 4"
    ) as caught:
        read_run(run)
    assert "train it again with `sdm finetune" in caught.value.hint
    header = json.loads((merged / "merged.json").read_text())
    about = read_merged(merged)
    assert (about.family, about.kind, about.schema) == ("energy", "mdp", "compact")
    assert about.observes_reward and about.horizon == 4
    del header["run_version"]  # as it was before version 4
    (merged / "merged.json").write_text(json.dumps(header))
    with pytest.raises(StorageError, match="run version before 4, expected 4"):
        check_policy(f"icl:{merged}", EvaluationConfig(EnergyFamily(), 4, 2, 1))


@pytest.mark.slow
def test_a_merged_model_is_the_run(data, base, tmp_path):
    config = quick(data, base, learning_rate=1e-2)
    finetune(config, tmp_path / "run")
    merge(tmp_path / "run", tmp_path / "merged")
    run = load_run(tmp_path / "run")
    model, tokenizer = load_base(str(tmp_path / "merged"))
    ids = torch.tensor([tokenizer("3a4c")["input_ids"]])
    with torch.no_grad():
        scores, merged = run.model(ids).logits, model(ids).logits
        plain = load_base(base)[0](ids).logits
    # The adapter's product is added before instead of after: single precision.
    torch.testing.assert_close(merged, scores, rtol=0, atol=1e-4)
    assert (plain - merged).abs().max() > 0.05
    assert default_schema(str(tmp_path / "merged")) == "compact"
    with pytest.raises(StorageError, match="exists already"):
        merge(tmp_path / "run", tmp_path / "merged")
    merge(tmp_path / "run", tmp_path / "merged", overwrite=True)


def test_all_weights_need_no_merging_and_are_copied(finished, tmp_path):
    merge(finished / "tiny", tmp_path / "merged")
    found, wanted = load_base(str(tmp_path / "merged"))[0], load_run(finished / "tiny")
    for name, weight in wanted.model.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], weight, rtol=0, atol=0)


def test_the_trainer_is_told_what_the_configuration_says(data, base, tmp_path):
    options = {"warmup": 0.2, "weight_decay": 0.03, "gradient_checkpointing": True}
    config = quick(data, base, **options, accumulate=2, epochs=5, seed=6)
    arguments = training_arguments(config, tmp_path, processes=2)
    assert arguments.lr_scheduler_type == "cosine" and arguments.warmup_steps == 0.2
    assert (arguments.weight_decay, arguments.learning_rate) == (0.03, 1e-3)
    assert arguments.gradient_checkpointing and arguments.seed == 6
    assert (
        arguments.per_device_train_batch_size,
        arguments.gradient_accumulation_steps,
    ) == (
        2,
        2,
    )
    assert (arguments.num_train_epochs, arguments.optim) == (5, "adamw_torch")
    shape = {"lora_rank": 3, "lora_alpha": 5, "lora_dropout": 0.25}
    model, _ = prepare_model(quick(data, base, **shape))
    lora = model.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (3, 5, 0.25)


def test_tasks_and_texts_are_those_that_the_configuration_asks_for(
    data, base, tmp_path, monkeypatch
):
    asked = []

    def stop(*args, **options):
        asked.append((args[0], options))
        raise KeyboardInterrupt

    monkeypatch.setattr("sdm.llm.training_data.training_texts", stop)
    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            config = quick(data, base, tasks=10, support=1, seed=seed)
            finetune(config, tmp_path / "run")
    (tasks, options), (others, _) = asked
    assert (
        len(tasks) == 9 and set(tasks) <= set(range(10)) and set(tasks) != set(others)
    )
    assert (options["seed"], options["support"], options["per_task"]) == (0, 1, 2)


def test_training_and_acting_write_the_same_texts(tmp_path, monkeypatch):
    family = DarkroomFamily(size=3)
    made = OracleConfig(family, 4, 6, 4)
    write_oracle_dataset(made, tmp_path / "data")
    seen = {"training_data": [], "acting": []}
    for module, calls in seen.items():
        known = importlib.import_module(f"sdm.llm.{module}")
        wanted = known.make_schema

        def spy(name, spaces, kind, calls=calls, wanted=wanted, **options):
            calls.append((name, spaces, kind, options))
            return wanted(name, spaces, kind, **options)

        monkeypatch.setattr(known, "make_schema", spy)
    finetune(quick(tmp_path / "data", "tiny", epochs=1), tmp_path / "run")
    bed = make_benchmark(EvaluationConfig(family, 4, 2, 1))
    evaluate([str(tmp_path / "run")], bed)
    same = ("compact", family.spaces, "mdp", {"rewards": True})
    for calls in seen.values():
        assert calls and all(call == same for call in calls)


def test_the_papers_recipe_is_the_papers():
    config = recipe("data", "meta-llama/Llama-2-7b-hf")
    assert (config.quantize, config.schema, config.loss) == ("nf4", "paper", "all")
    assert (config.epochs, config.lora_dropout, config.warmup) == (3, 0.1, 0.05)
    # Sixteen texts at once, all kept, would not fit the paper's GPU.
    assert config.gradient_checkpointing and config.accumulate == 2
    options = {"quantize": "none", "gradient_checkpointing": False}
    other = recipe("data", "meta-llama/Llama-2-7b-hf", **options)
    assert other.quantize == "none" and not other.gradient_checkpointing


@pytest.mark.parametrize(
    ("processes", "given", "pieces"),
    [
        (1, {}, 2),
        (8, {}, 2),
        (16, {}, 1),
        (1, {"batch_size": 1}, 1),
        (4, {"batch_size": 12}, 1),
        (1, {"batch_size": 3, "accumulate": 2}, 2),  # refused where it is divided
    ],
)
def test_a_recipe_takes_no_more_pieces_than_there_are(
    monkeypatch, processes, given, pieces
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    config = recipe("data", "meta-llama/Llama-2-7b-hf", **given)
    assert config.accumulate == pieces


@pytest.mark.parametrize("changes", [{"lora_dropout": 1.0}, {"lora_alpha": 0}])
def test_an_adapter_that_cannot_be_is_refused(data, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        quick(data, "smollm2", **changes)


def test_what_is_trained_whole_is_in_single_precision(data, base, monkeypatch):
    """On an accelerator, too, where an adapter's frozen base is in bfloat16."""
    monkeypatch.setattr("sdm.llm.bases.compute_dtype", lambda: torch.bfloat16)
    whole, _ = prepare_model(quick(data, base, lora_rank=0))
    assert {weight.dtype for weight in whole.parameters()} == {torch.float32}
    adapted, _ = prepare_model(quick(data, base))
    frozen = {w.dtype for w in adapted.parameters() if not w.requires_grad}
    learned = {w.dtype for w in adapted.parameters() if w.requires_grad}
    assert (frozen, learned) == ({torch.bfloat16}, {torch.float32})


def test_a_folder_has_the_recipe_of_the_base_that_it_is_named_after():
    for name in ("meta-llama/Llama-2-7b-hf", "/models/Llama-2-7b-hf", "Llama-2-7b-hf"):
        assert recipe("data", name).quantize == "nf4"
    for name in ("meta-llama/Llama-2-13b-hf", "./tiny", "runs/smollm2"):
        assert recipe("data", name) == FinetuneConfig("data", name)


def test_an_adapter_whose_base_was_moved_says_so(finished, base, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished / "adapter", run)
    header = yaml.safe_load((run / "config.yaml").read_text())
    header["finetune"]["base"] = str(tmp_path / "elsewhere")
    (run / "config.yaml").write_text(yaml.safe_dump(header))
    with pytest.raises(
        StorageError, match=r"base is missing, expected in `.*elsewhere`"
    ) as caught:
        load_run(run)
    assert "config.yaml" in caught.value.hint
    shutil.copytree(base, tmp_path / "elsewhere")  # where the configuration says
    assert load_run(run).header.config.base == str(tmp_path / "elsewhere")


@pytest.mark.slow
def test_from_scratch_only_the_architecture_is_the_bases(data, base, tmp_path):
    config = quick(data, base, from_scratch=True, epochs=1, seed=3)
    assert config.lora_rank == 0, "an adapter would leave random weights as they are"
    fresh, tokenizer = prepare_model(config)
    pretrained, _ = load_base(base)
    assert fresh.config.hidden_size == pretrained.config.hidden_size == 64
    assert len(tokenizer) == len(tiny_tokenizer())
    own, theirs = dict(fresh.named_parameters()), dict(pretrained.named_parameters())
    assert own.keys() == theirs.keys()
    for name, weights in own.items():
        assert weights.shape == theirs[name].shape and weights.requires_grad
        if "norm" not in name:
            assert (weights - theirs[name]).abs().mean() > 1e-3
    same, _ = prepare_model(config)
    other, _ = prepare_model(dataclasses.replace(config, seed=4))
    table = "model.embed_tokens.weight"
    assert torch.equal(dict(same.named_parameters())[table], own[table])
    assert not torch.equal(dict(other.named_parameters())[table], own[table])
    report = finetune(config, tmp_path / "run")
    assert np.isfinite(report.train_loss)
    trained = dict(load_run(tmp_path / "run").model.named_parameters())
    assert not torch.equal(trained[table], own[table])


def test_the_recipe_of_a_quantised_base_can_begin_from_scratch(data):
    config = recipe(str(data), "meta-llama/Llama-2-7b-hf", from_scratch=True)
    assert (config.quantize, config.lora_rank) == ("none", 0)


@pytest.mark.slow
def test_random_queries_teach_what_the_oracle_would_have_done(tmp_path):
    """Actions of a random walk are read, and those of the oracle learned."""
    folder = tmp_path / "data"
    made = OracleConfig(EnergyFamily(), 4, 24, 4, seed=1, random_trajectories=4)
    write_oracle_dataset(made, folder)
    config = quick(folder, "tiny", queries="all", epochs=20, loss="actions", seed=1)
    config = dataclasses.replace(config, learning_rate=3e-3)
    finetune(config, tmp_path / "run")
    model = load_run(tmp_path / "run").model
    table = read_shards(folder).to_pylist()
    wandered = [row for row in table if row["random"]]
    texts = [COMPACT.render(episode_of(row)) for row in wandered]
    ids = tiny_tokenizer()(texts, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        scores = model(ids).logits
    letters = tiny_tokenizer()(list("abc"))["input_ids"]
    chosen = scores[:, 0:-1:2, [i for (i,) in letters]].argmax(-1).numpy()
    better = np.array([row["optimal_action"] for row in wandered])
    done = np.array([row["action"] for row in wandered])
    assert (chosen == better).mean() > 0.8 > (chosen == done).mean() + 0.2


def episode_of(row):
    return Episode(*(tuple(row[k]) for k in ("observation", "action", "reward")))


@pytest.mark.parametrize("name", ["tiny", "adapter"])
def test_training_starts_from_the_weights_of_a_run(data, base, finished, name):
    run = finished / name
    before = load_run(run).model.state_dict()
    config = read_run(run).config
    model, _ = prepare_model(dataclasses.replace(config, start=str(run)))
    own, fresh = model.state_dict(), prepare_model(config)[0].state_dict()
    assert own.keys() == before.keys() == fresh.keys()
    assert all(torch.equal(own[key], before[key]) for key in own)
    assert not all(torch.equal(own[key], fresh[key]) for key in own)
    trained = {n for n, weight in model.named_parameters() if weight.requires_grad}
    lora = {key for key in own if "lora" in key}
    assert trained == (
        lora if name == "adapter" else {n for n, _ in model.named_parameters()}
    )


def test_a_run_of_another_kind_is_no_start(data, base, finished):
    config = dataclasses.replace(
        quick(data, "tiny", schema="paper"), start=str(finished / "tiny")
    )
    with pytest.raises(ValueError, match="schema must be 'paper', found 'compact'"):
        prepare_model(config)
    with pytest.raises(ValueError, match="base must be"):
        prepare_model(quick(data, base, start=str(finished / "tiny")))
    with pytest.raises(StorageError, match="is not a run folder"):
        prepare_model(quick(data, "tiny", start=str(data)))
    with pytest.raises(ValueError, match="must not be given with from_scratch"):
        quick(data, "tiny", start="run", from_scratch=True)
