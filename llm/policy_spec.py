"""Language models as policies by name: `icl:BASE`, or a run folder.

PyTorch is imported only where a model is loaded.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.llm.base_names import check_base_name
from sdm.policies.spec import ActingOptions, Stepwise, register_parser

PREFIX = "icl:"
# Files that say what was trained, and that no two runs have in common.
IDENTIFY = ("metrics.jsonl", "merged.json")


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
        return Path(self.text.removeprefix(PREFIX))

    @property
    def like(self) -> str:
        """The paper has a model in context only, and a fine-tuned one."""
        in_context = self.text.startswith(PREFIX)
        merged = (self.folder / "merged.json").is_file()
        return "icl" if in_context and not merged else "sft"

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless there can be such a model, or is such a run."""
        if self.text.startswith(PREFIX):
            check_base_name(self.text.removeprefix(PREFIX))
            return
        from sdm.llm.acting import check_backend
        from sdm.llm.runs import read_run

        check_backend(self.text, options.backend)
        read_run(self.folder)

    def fingerprint(self) -> str | None:
        """Hash what its folder says of its training, and when that was written."""
        for file in (self.folder / name for name in IDENTIFY):
            if file.is_file():
                about = file.read_bytes() + str(file.stat().st_mtime_ns).encode()
                return hashlib.sha256(about).hexdigest()
        return None

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
    is_run = (Path(text) / "config.yaml").is_file()
    return LanguageModel(text) if text.startswith(PREFIX) or is_run else None
