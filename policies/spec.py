"""Policies as the command line names them.

    NAME                 a policy without training, from `policies/registry.py`
    always-ACTION        the same action in every place
    dpt:RUN, cql:RUN     a policy that `sdm train` learned
    icl:BASE, RUN        a language model, in context only or fine-tuned

Each form is a parser that makes a `PolicySpec` of a text, or leaves it to the others.
Other packages add a parser with `register_parser`, in a module that they name in the
entry-point group `sdm.policies`.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.policies.prepared import Prepared
from sdm.policies.registry import GROUP, check_rule, is_rule, names, prepare, rules
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.policy import Policy


@dataclass(frozen=True)
class ActingOptions:
    """How language models are read and computed.

    Attributes:
        schema: text schema for `icl:` policies; None for the base's default.
        quantize: `nf4` to load the bases of `icl:` policies in 4 bits.
        backend: `vllm` to compute `icl:` policies with vLLM.

    """

    schema: str | None = None
    quantize: str | None = None
    backend: str | None = None


@runtime_checkable
class Stepwise(Protocol):
    """Makes a policy that is stepped from the host, for a group of test tasks.

    Attributes:
        rows: episodes that fit the memory together.

    """

    @property
    def rows(self) -> int: ...  # noqa: D102

    def __call__(self, group: slice) -> Policy:
        """Return the policy for these tasks."""
        ...


@runtime_checkable
class PolicySpec(Protocol):
    """A policy that is named, and not yet made for a benchmark.

    Attributes:
        text: its name on the command line.
        needs_torch: whether PyTorch computes it.
        like: the policy of the paper to compare it with, as `evaluation/paper.toml`
            names them; "" for none.

    """

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def needs_torch(self) -> bool: ...  # noqa: D102
    @property
    def like(self) -> str: ...  # noqa: D102

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless it can play a benchmark; loads no model."""

    def fingerprint(self) -> str | None:
        """Identify what was learned; None where nothing was."""

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared | Stepwise:
        """Make the policy for a benchmark."""
        ...


Parser = Callable[[str], PolicySpec | None]
_parsers: list[Parser] = []


def register_parser(parser: Parser) -> Parser:
    """Register a form of names; use it as a decorator."""
    _parsers.append(parser)
    return parser


@dataclass(frozen=True)
class Untrained:
    """A policy without training."""

    text: str
    needs_torch: bool = False

    @property
    def like(self) -> str:
        """The paper has some of these, by the same names."""
        return self.text

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless it fits the family and kind."""
        check_rule(self.text, config.family, config.kind)

    def fingerprint(self) -> None:
        """Nothing was learned."""

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared:
        """Prepare it."""
        return prepare(self.text, bed)


@register_parser
def untrained(text: str) -> Untrained | None:
    """Read the name of a policy without training."""
    return Untrained(text) if is_rule(text) else None


@cache
def parsers() -> tuple[Parser, ...]:
    """Return every parser, those of other packages included."""
    importlib.import_module("sdm.policies.learned")
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
    return tuple(_parsers)


def parse_policy(text: str) -> PolicySpec:
    """Read a policy's name.

    Raises:
        ValueError: if no parser knows it.

    """
    for parser in parsers():
        if (spec := parser(text)) is not None:
            return spec
    raise ValueError(
        f"unknown policy `{text}`: it is none of {', '.join(rules())}, does not begin "
        "with `always-`, `dpt:`, `cql:` or `icl:`, and is not a run folder"
    )


def choose_policies(
    given: Sequence[str], family: TaskFamily, kind: Kind, *, several: bool = False
) -> list[str]:
    """Return the policies that names on the command line stand for.

    Args:
        given: names; `all` stands for every policy without training that fits, and
            `{family}` and `{setting}` in a name for the family and the kind.
        family: of the benchmark.
        kind: of the benchmark.
        several: whether the names are meant for several benchmarks: policies without
            training that do not fit this one are then left out.

    """
    fitting = names(family, kind)
    chosen: list[str] = []
    for name in given:
        if name == "all":
            chosen += fitting
        elif not several or not is_rule(name) or _fits(name, family, kind):
            filled = name.replace("{setting}", kind).replace("{family}", family.name)
            chosen.append(filled)
    return list(dict.fromkeys(chosen))


def _fits(name: str, family: TaskFamily, kind: Kind) -> bool:
    try:
        check_rule(name, family, kind)
    except ValueError:
        return False
    return True
