"""Options of language models in `sdm eval`: used, or said to have no effect."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from small_llama import small_llama
from typer.testing import CliRunner
from untrained_run import untrained_run

from sdm.cli import app
from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate
from sdm.llm.bases import BaseModelError
from sdm.llm.devices import device
from sdm.llm.tiny import tiny_tokenizer
from sdm.policies.spec import ActingOptions
from sdm.solvers_jax import EnergyFamily

SMALL = ["eval", "--horizon", "2", "--tasks", "2", "--trajectories", "2", "--json"]
CODE = """\
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def run(*arguments, **options):
    return CliRunner().invoke(app, [*SMALL, *arguments], **options)


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A base whose folder holds the code of its architecture."""
    for module in (transformers.dynamic_module_utils, transformers.utils.hub):
        if hasattr(module, "HF_MODULES_CACHE"):
            monkeypatch.setattr(module, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    small_llama(0, len(tiny_tokenizer()), width=32, factor=4).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "own_code.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "own_code.OwnConfig",
            "AutoModelForCausalLM": "own_code.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_the_code_of_a_base_runs_if_it_is_trusted(own_code):
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), 2, 2, 2))
    name = f"icl:{own_code}"
    with pytest.raises(BaseModelError, match="cannot load the base") as refused:
        evaluate([name], bed, ActingOptions(schema="compact"))
    assert "--trust-remote-code" in refused.value.hint
    trusting = ActingOptions(schema="compact", trust_remote_code=True)
    (result,) = evaluate([name], bed, trusting)
    assert 0 <= result.invalid_mass <= 1
    command = ["--policy", name, "--schema", "compact"]
    assert run(*command).exit_code == 1
    played = run(*command, "--trust-remote-code")
    assert played.exit_code == 0, played.output
    assert name in json.loads(played.stdout)["policies"]


@pytest.mark.slow
def test_a_run_folder_cannot_decide_that_code_is_run(tmp_path):
    folder = untrained_run(tmp_path / "run", EnergyFamily(), "mdp", 2)
    config = Path(folder) / "config.yaml"
    text = config.read_text()
    assert "trust_remote_code: false" in text
    config.write_text(
        text.replace("trust_remote_code: false", "trust_remote_code: true")
    )
    refused = run("--policy", folder)
    assert refused.exit_code == 2 and "runs the Python code" in refused.stderr
    assert "--trust-remote-code" in refused.stderr
    assert run("--policy", folder, "--trust-remote-code").exit_code == 0


@pytest.mark.slow
def test_several_processes_are_refused():
    environment = {"WORLD_SIZE": "4", "LOCAL_RANK": "1", "RANK": "1"}
    for rank, said in (("0", 1), ("1", 0)):
        refused = run("--policy", "random", env={**environment, "RANK": rank})
        assert refused.exit_code == 2 and refused.stdout == ""
        assert refused.stderr.count("must run in one process, found 4") == said
        assert refused.stderr.count("CUDA_VISIBLE_DEVICES") == said
    alone = {"WORLD_SIZE": "1", "LOCAL_RANK": "0", "RANK": "0"}
    assert run("--policy", "random", env=alone).exit_code == 0


def test_a_model_uses_one_of_several_cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device() == torch.device("cuda", 0)
    moved = []
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, where: moved.append(where))
    monkeypatch.setattr(
        torch.nn, "DataParallel", lambda *_: pytest.fail("the model is copied")
    )
    from sdm.llm.bases import load_base

    model, _ = load_base("tiny")
    assert moved == [torch.device("cuda", 0)]
    assert isinstance(model, transformers.LlamaForCausalLM)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*has no effect")
def test_options_that_a_run_does_not_use_are_pointed_out(tmp_path):
    folder = untrained_run(tmp_path / "run", EnergyFamily(), "mdp", 2)
    given = ["--schema", "paper", "--quantize", "nf4", "--trust-remote-code"]
    played = run("--policy", folder, *given)
    assert played.exit_code == 0, played.output
    assert played.stderr.count("warning:") == 3
    for option, kept in (
        ("--schema", "schema = compact"),
        ("--quantize", "quantize = none"),
        ("--trust-remote-code", "trust_remote_code = False"),
    ):
        said = f"`{folder}`: `{option}` has no effect: a run keeps {kept} of its"
        assert said in played.stderr
    same = run("--policy", folder, "--schema", "compact", "--quantize", "none")
    assert same.exit_code == 0 and "warning" not in same.stderr
    both = run("--policy", folder, "--policy", "icl:tiny", "--schema", "paper")
    assert both.exit_code == 0 and both.stderr.count("has no effect") == 1


def test_options_of_language_models_without_one_are_pointed_out():
    played = run("--policy", "random", "--schema", "paper", "--backend", "torch")
    assert played.exit_code == 0
    for option in ("--schema", "--backend"):
        said = f"`{option}` has no effect: no policy is a language model"
        assert said in played.stderr
    with_one = run("--policy", "random", "--policy", "icl:tiny", "--schema", "paper")
    assert with_one.exit_code == 0 and "no effect" not in with_one.stderr
