"""Names of policies on the command line.

    NAME                 a policy without training, from `policies/registry.py`
    always-ACTION        the same action after every observation
    dpt:RUN, cql:RUN     a policy that `sdm train` learned
    icl:BASE, RUN        a language model, in context only or fine-tuned

A parser for each form returns a `PolicySpec`, or None for a name of another form.
Another package adds a parser in a module that calls `register_parser` and is listed in
the entry-point group `sdm.policies`.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.data.request import family_of
from sdm.policies.prepared import Prepared
from sdm.policies.registry import GROUP, check_rule, is_rule, names, prepare, rules
from sdm.storage.checks import check_tolerance
from sdm.storage.ownership import check_finished
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.policy import Policy


@dataclass(frozen=True)
class ActingOptions:
    """Options of language models.

    Attributes:
        schema: text schema of `icl:` policies; None for the base's default.
        quantize: `nf4` to load the bases of `icl:` policies in 4 bits.
        backend: `vllm` to compute `icl:` policies with vLLM.
        trust_remote_code: run the Python code in the repositories of bases.
        temperature: at 0, language models take the most probable action; above, they
            sample actions with probabilities proportional to p^(1 / temperature).

    """

    schema: str | None = None
    quantize: str | None = None
    backend: str | None = None
    trust_remote_code: bool = False
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Raise `ValueError` unless the temperature is 0 or more."""
        check_tolerance("temperature", self.temperature)


@runtime_checkable
class Stepwise(Protocol):
    """A factory of a policy, stepped from the host, for a group of test tasks.

    Attributes:
        rows: number of episodes that fit the memory together.

    """

    @property
    def rows(self) -> int: ...  # noqa: D102

    def __call__(self, group: slice) -> Policy:
        """Return the policy for these tasks."""
        ...


@runtime_checkable
class PolicySpec(Protocol):
    """A policy by name, before it is built for a benchmark.

    Attributes:
        text: name of the policy on the command line.
        needs_torch: whether PyTorch computes it.
        like: name of the paper's policy to compare with, as in `evaluation/paper.toml`;
            a name that this file lacks, such as "", for none.

    """

    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def needs_torch(self) -> bool: ...  # noqa: D102
    @property
    def like(self) -> str: ...  # noqa: D102

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless the policy can play a benchmark; load no model."""

    def fingerprint(self) -> str | None:
        """Return a hash of what was learned; None for a policy without training."""

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared | Stepwise:
        """Return the policy for a benchmark."""
        ...


Parser = Callable[[str], PolicySpec | None]
_parsers: list[Parser] = []


def register_parser(parser: Parser) -> Parser:
    """Register the parser of a form of names; use it as a decorator."""
    _parsers.append(parser)
    return parser


@dataclass(frozen=True)
class Untrained:
    """A policy without training."""

    text: str
    needs_torch: bool = False

    @property
    def like(self) -> str:
        """Return the policy's name, which is also that of the paper's policy."""
        return self.text

    def check(self, config: EvaluationConfig, options: ActingOptions) -> None:
        """Raise `ValueError` unless the policy fits the family and kind."""
        check_rule(self.text, config.family, config.kind)

    def fingerprint(self) -> None:
        """Return None, since nothing was learned."""

    def build(self, bed: Benchmark, options: ActingOptions) -> Prepared:
        """Return the policy for a benchmark."""
        return prepare(self.text, bed)


@register_parser
def untrained(text: str) -> Untrained | None:
    """Parse the name of a policy without training; return None for other names."""
    return Untrained(text) if is_rule(text) else None


@cache
def parsers() -> tuple[Parser, ...]:
    """Return every parser, including those of other packages."""
    importlib.import_module("sdm.policies.learned")
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
    return tuple(_parsers)


def parse_policy(text: str) -> PolicySpec:
    """Parse the name of a policy.

    Raises:
        ValueError: if the policy is unknown.

    """
    for parser in parsers():
        if (spec := parser(text)) is not None:
            return spec
    check_finished(Path(text))
    if inside := sorted(map(str, Path(text).glob("*/run")), key=_by_number):
        raise ValueError(
            f"policy `{text}`: a folder of runs: choose one of them, such as the last, "
            f"`{inside[-1]}`"
        )
    raise ValueError(
        f"unknown policy `{text}`: must be one of {', '.join(rules())}, begin with "
        "`always-`, `dpt:`, `cql:` or `icl:`, or be a run folder"
    )


def _by_number(name: str) -> tuple[int, str]:
    """Return a sort key by which `iteration-10` comes after `iteration-9`."""
    return len(name), name


def choose_policies(
    given: Sequence[str], family: TaskFamily, kind: Kind, *, several: bool = False
) -> list[str]:
    """Return the policies that names on the command line stand for, without duplicates.

    Args:
        given: names; `all` stands for every policy without training that fits, and
            `{family}` and `{setting}` in a name for the family and the kind.
        family: family of the benchmark.
        kind: kind of model of the benchmark.
        several: whether the names are for several benchmarks; policies without training
            that do not fit this one are then omitted.

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


def training_family_of(spec: PolicySpec) -> TaskFamily | None:
    """Return the family of a policy's training tasks; None if it is unknown.

    Policies that were trained have a method `trained_on`, which returns the entries of
    a manifest that describe the tasks.
    """
    describe = getattr(spec, "trained_on", None)
    if describe is None or (tasks := describe()) is None:
        return None
    try:
        return family_of(tasks)
    except ValueError:  # its package is missing or has changed
        return None
