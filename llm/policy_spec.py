"""Language models as policies by name: `icl:BASE`, or a run folder.

This module imports PyTorch only to load a model.
"""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.llm.base_names import ICL, check_backend, check_base_name
from sdm.llm.logged_policy import in_context, tuned
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.run_folder import (
    content_hash,
    default_schema,
    is_merged,
    is_run,
    read_merged,
    read_run,
)
from sdm.llm.schema import make_schema
from sdm.policies.spec import ActingOptions, Stepwise, register_parser

__all__ = ["LanguageModel", "in_context", "language_model", "tuned"]


@dataclass(frozen=True)
class LanguageModel:
    """A base model in context only, a merged model, or a fine-tuned model.

    Attributes:
        text: name of the policy on the command line.
        needs_torch: whether PyTorch computes it.

    """

    text: str
    needs_torch: bool = True

    @property
    def folder(self) -> Path:
        """Return the run folder, or the base's folder if the base is one."""
        return Path(self.text.removeprefix(ICL))

    @property
    def like(self) -> str:
        """Return the paper's policy to compare with, `icl` or `sft`."""
        plain = self.text.startswith(ICL) and not is_merged(self.folder)
        return "icl" if plain else "sft"

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless model and schema fit the benchmark; load no model.

        Args:
            config: configuration of the benchmark.
            options: how language models are read and computed.

        """
        check_backend(self.text, options.backend, options.quantize)
        if self.text.startswith(ICL):
            base = self.text.removeprefix(ICL)
            check_base_name(base)
            schema = options.schema or default_schema(base)
        else:
            trained = read_run(self.folder).config
            _warn_of_unused(self.text, trained, options)
            schema = trained.schema
        spaces = config.family.spaces
        make_schema(schema, spaces, config.kind, rewards=config.rewards_seen)

    def fingerprint(self) -> str | None:
        """Return a hash that identifies a run or a merged model; None for a base."""
        return content_hash(self.folder)

    def trained_on(self) -> Mapping[str, Any] | None:
        """Return the description of the training tasks; None for a base."""
        if not self.text.startswith(ICL):
            return dataclasses.asdict(read_run(self.folder))
        merged = read_merged(self.folder)
        return None if merged is None else dataclasses.asdict(merged)

    def build(self, bed: Benchmark, options: ActingOptions) -> Stepwise:
        """Load the model, and return a factory of its policy."""
        from sdm.llm.acting import language_model_policy

        made = language_model_policy(
            self.text,
            bed,
            schema=options.schema,
            quantize=options.quantize,
            backend=options.backend,
            trust_remote_code=options.trust_remote_code,
        )
        return dataclasses.replace(made, temperature=options.temperature)


def _warn_of_unused(name: str, trained: FinetuneConfig, options: ActingOptions) -> None:
    """Warn of options that a run does not use, since it keeps those of its training."""
    for option in ("schema", "quantize", "trust_remote_code"):
        asked, kept = getattr(options, option), getattr(trained, option)
        if asked and asked != kept:
            warnings.warn(
                f"`{name}`: `--{option.replace('_', '-')}` has no effect: a run keeps "
                f"{option} = {kept} of its training",
                stacklevel=3,
            )


@register_parser
def language_model(text: str) -> LanguageModel | None:
    """Parse `icl:BASE` or a run folder; return None for other names."""
    named = text.startswith(ICL) or is_run(Path(text))
    return LanguageModel(text) if named else None
