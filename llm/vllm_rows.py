"""Scoring with vLLM, which computes the same numbers as `CachedRows`.

vLLM loads a model from a folder or by its Hugging Face id: a base, or a run that `sdm
merge` has merged. It caches the common prefixes of texts itself.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sdm.llm.bases import BaseModelError, base_source
from sdm.llm.context import check_context
from sdm.llm.devices import compute_dtype
from sdm.llm.scoring import Tokens


@dataclass(frozen=True)
class Engine:
    """A vLLM engine that holds one model."""

    vllm: Any  # a `vllm.LLM`; vLLM is an optional dependency

    @property
    def longest(self) -> int:
        """Return the model's context length in tokens."""
        return int(self.vllm.llm_engine.model_config.max_model_len)

    def next_log_probabilities(
        self, texts: Sequence[Tokens], wanted: Sequence[Tokens]
    ) -> list[dict[int, float]]:
        """Return the log-probability, in nats, of each wanted token after its text."""
        from vllm import SamplingParams, TokensPrompt

        outputs = self.vllm.generate(
            [TokensPrompt(prompt_token_ids=text) for text in texts],
            [
                SamplingParams(
                    temperature=0.0,
                    max_tokens=1,
                    logprob_token_ids=tokens,
                    detokenize=False,
                )
                for tokens in wanted
            ],
            use_tqdm=False,
        )
        found = [output.outputs[0].logprobs[0] for output in outputs]
        return [
            {token: float(of[token].logprob) for token in tokens}
            for of, tokens in zip(found, wanted, strict=True)
        ]


def start_engine(base: str, *, trust_remote_code: bool = False) -> Engine:
    """Load a base into vLLM.

    Args:
        base: name of the base.
        trust_remote_code: run the Python code that a model's repository contains.

    Raises:
        BaseModelError: if vLLM is not installed, or cannot load the base.

    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm import LLM
    except ImportError as error:
        raise BaseModelError(
            "vLLM is not installed", "pip install 'sdm-llm[vllm]'"
        ) from error
    if base == "tiny":
        raise BaseModelError("`tiny` has no weights: fine-tune it, then `sdm merge`")
    try:
        engine = LLM(
            base_source(base),
            dtype=str(compute_dtype()).removeprefix("torch."),
            enable_prefix_caching=True,
            skip_tokenizer_init=True,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise BaseModelError(f"vLLM cannot load the base `{base}`: {first}") from error
    return Engine(engine)


class VllmRows:
    """Rows whose candidates vLLM scores."""

    def __init__(self, engine: Engine, prefixes: Sequence[Tokens]) -> None:
        """Store the engine; vLLM caches the prefixes when it first reads them."""
        self.engine = engine

    def score(
        self,
        targets: Sequence[Tokens],
        suffixes: Sequence[Sequence[Tokens]],
        parents: Sequence[int],
    ) -> Float[np.ndarray, "rows A"]:
        """Return the log-probability of each row's candidates, in nats.

        Each distinct context of a candidate's token is one request.
        """
        wanted: dict[tuple[int, ...], dict[int, None]] = {}
        for target, row in zip(targets, suffixes, strict=True):
            for suffix in row:
                for i, token in enumerate(suffix):
                    wanted.setdefault((*target, *suffix[:i]), {})[token] = None
        check_context(self.engine.longest, max(map(len, wanted)) + 1)
        found = self.engine.next_log_probabilities(
            [list(text) for text in wanted],
            [list(tokens) for tokens in wanted.values()],
        )
        after = dict(zip(wanted, found, strict=True))
        return np.array(
            [
                [
                    sum(
                        after[(*target, *suffix[:i])][token]
                        for i, token in enumerate(suffix)
                    )
                    for suffix in row
                ]
                for target, row in zip(targets, suffixes, strict=True)
            ],
            np.float32,
        )
