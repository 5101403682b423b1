"""Language models as policies by name: `icl:BASE`, or a run folder.

PyTorch is imported only where a model is loaded.
"""

from dataclasses import dataclass
from pathlib import Path

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.llm.base_names import ICL, check_backend, check_base_name
from sdm.llm.run_folder import (
    content_hash,
    default_schema,
    is_merged,
    is_run,
    read_run,
)
from sdm.llm.schema import make_schema
from sdm.policies.spec import ActingOptions, Stepwise, register_parser


@dataclass(frozen=True)
class LanguageModel:
    """A base model in context only, a merged model, or a fine-tuning run.

    Attributes:
        text: its name on the command line.

    """

    text: str
    needs_torch: bool = True

    @property
    def folder(self) -> Path:
        """Where it may be."""
        return Path(self.text.removeprefix(ICL))

    @property
    def like(self) -> str:
        """The paper has a model in context only, and a fine-tuned one."""
        plain = self.text.startswith(ICL) and not is_merged(self.folder)
        return "icl" if plain else "sft"

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless there can be such a model, and a schema for it."""
        check_backend(self.text, options.backend, options.quantize)
        if self.text.startswith(ICL):
            base = self.text.removeprefix(ICL)
            check_base_name(base)
            schema = options.schema or default_schema(base)
        else:
            schema = read_run(self.folder).config.schema
        spaces = config.family.spaces
        make_schema(schema, spaces, config.kind, rewards=config.rewards_seen)

    def fingerprint(self) -> str | None:
        """Identify what a run or a merged model has learned."""
        return content_hash(self.folder)

    def build(self, bed: Benchmark, options: ActingOptions) -> Stepwise:
        """Load the model."""
        from sdm.llm.acting import language_model_policy

        return language_model_policy(
            self.text,
            bed,
            schema=options.schema,
            quantize=options.quantize,
            backend=options.backend,
        )


@register_parser
def language_model(text: str) -> LanguageModel | None:
    """Read `icl:BASE`, or a folder that holds a run."""
    named = text.startswith(ICL) or is_run(Path(text))
    return LanguageModel(text) if named else None
