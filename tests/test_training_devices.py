"""GPUs, number formats and threads of a training; the GPUs are pretended."""

import os

import pytest
import torch
from accelerate.state import AcceleratorState
from training_support import QUIET, quick, write_base, write_data

from sdm.commands.console import start_torch
from sdm.llm.devices import compute_dtype
from sdm.llm.finetune import finetune
from sdm.llm.run_folder import read_run
from sdm.llm.runs import load_run
from sdm.llm.training import prepare_model, training_arguments

pytestmark = QUIET


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("oracle") / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def gpus(monkeypatch):
    """Pretend to have this number of GPUs, with or without bfloat16."""

    def pretend(count, bfloat16):
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
        monkeypatch.setattr(
            "torch.cuda.is_bf16_supported",
            lambda including_emulation=True: bfloat16 or including_emulation,
        )

    yield pretend
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_one_process_trains_on_one_of_several_gpus(data, base, tmp_path, gpus):
    """The trainer would copy the model to all of them, and use larger batches."""
    config = quick(data, base)
    gpus(8, bfloat16=True)
    with pytest.warns(UserWarning, match="8 GPUs are .* `torchrun --nproc"):
        arguments = training_arguments(config, tmp_path, processes=1)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 8)
    gpus(1, bfloat16=True)
    assert training_arguments(config, tmp_path, processes=1).n_gpu == 1  # no warning


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_gpu_without_bfloat16_computes_in_float16(
    data, base, tmp_path, gpus, bfloat16
):
    config = quick(data, base, quantize="nf4")
    gpus(1, bfloat16)
    wanted = torch.bfloat16 if bfloat16 else torch.float16
    assert compute_dtype() == wanted
    arguments = training_arguments(config, tmp_path, processes=1)
    assert (arguments.bf16, arguments.fp16) == (bfloat16, not bfloat16)
    assert arguments.mixed_precision == ("bf16" if bfloat16 else "fp16")


def test_a_cpu_computes_in_single_precision(data, base, tmp_path):
    arguments = training_arguments(quick(data, base), tmp_path, processes=1)
    assert compute_dtype() == torch.float32 and not arguments.bf16 | arguments.fp16


@pytest.mark.slow
def test_an_adapter_in_float16_is_trained_in_single_precision_and_loads_elsewhere(
    data, base, tmp_path, monkeypatch
):
    """Loss scaling needs float32 weights; small weights of the base are rounded."""
    config = quick(data, base, epochs=1)
    with monkeypatch.context() as patch:
        for module in ("bases", "runs"):
            patch.setattr(f"sdm.llm.{module}.compute_dtype", lambda: torch.float16)
        model, _ = prepare_model(config)
        frozen = {w.dtype for w in model.parameters() if not w.requires_grad}
        learned = {w.dtype for w in model.parameters() if w.requires_grad}
        assert (frozen, learned) == ({torch.float16}, {torch.float32})
        finetune(config, tmp_path / "run")
        load_run(tmp_path / "run")  # no warning
    assert read_run(tmp_path / "run").base.startswith("float16-")
    with pytest.warns(UserWarning, match="another precision"):
        load_run(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "asked", "wanted"), [(10**9, None, 1), (0, None, 2), (10**9, "2", 2)]
)
def test_a_small_model_is_trained_with_one_thread(
    data, tmp_path, monkeypatch, most, asked, wanted
):
    """Unless the user asks for more; the number is restored, also after a failure."""
    monkeypatch.setattr("sdm.llm.devices.SMALL", most)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    found = []

    def progress(step, steps):
        found.append(torch.get_num_threads())
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            finetune(quick(data, "tiny"), tmp_path / "run", progress=progress)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert found == [wanted]


@pytest.mark.parametrize(("asked", "wanted"), [(None, "passive"), ("active", "active")])
def test_waiting_threads_sleep_unless_asked_to_spin(monkeypatch, asked, wanted):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    if asked:
        monkeypatch.setenv("OMP_WAIT_POLICY", asked)
    start_torch()
    assert os.environ["OMP_WAIT_POLICY"] == wanted
