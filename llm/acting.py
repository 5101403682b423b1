"""Load the language model that a policy's name stands for: `icl:BASE` or a run."""

import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.data.request import family_of
from sdm.llm.base_names import ICL, check_backend
from sdm.llm.bases import CausalModel, load_base, load_tokenizer
from sdm.llm.cache_check import EPISODES, TASKS, WHOLE, RowsInWindow, why_whole
from sdm.llm.cached_rows import rows_that_fit
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.run_folder import TrainedOn, default_schema, read_merged
from sdm.llm.runs import load_run
from sdm.llm.sample_episodes import longest_episode
from sdm.llm.schema import Schema, make_schema, unlike_stages
from sdm.llm.scoring import Rows, Tokens, encode
from sdm.llm.tokens import check_tokenizer
from sdm.llm.vllm_rows import VllmRows, start_engine
from sdm.llm.whole_rows import WholeRows
from sdm.policies.trained_on import warn_of_other_tasks
from sdm.tasks.registry import FamilyError, reference_of
from sdm.tasks.rollout import Trajectory


@dataclass(frozen=True)
class PolicyMaker:
    """A factory of a language model's policy for a group of test tasks.

    Attributes:
        begin: makes the rows in which it scores continuations of the given texts.
        tokenizer: the model's tokenizer.
        schema: text schema of the episodes.
        support: the demonstrations of each task.
        rows: number of episodes whose texts fit the memory together.
        temperature: see `LanguageModelPolicy`.

    """

    begin: Callable[[Sequence[Tokens]], Rows]
    tokenizer: PreTrainedTokenizerBase
    schema: Schema
    support: Sequence[Sequence[Episode]]
    rows: int
    temperature: float = 0.0

    def __call__(self, group: slice) -> LanguageModelPolicy:
        """Return the policy for these tasks."""
        return LanguageModelPolicy(
            self.begin,
            self.tokenizer,
            self.schema,
            self.support[group],
            len(self.schema.contents.actions),
            self.temperature,
        )


class Situation(NamedTuple):
    """What a language model needs to know of tasks in which it acts.

    Attributes:
        support: demonstrations of each task.
        played: any episodes in the tasks, by which its cache is checked.
        reward: smallest and largest reward of a decision.

    """

    support: Trajectory
    played: Trajectory
    reward: tuple[float, float]


def language_model_policy(
    name: str,
    bed: Benchmark,
    *,
    schema: str | None = None,
    quantize: str | None = None,
    backend: str | None = None,
    trust_remote_code: bool = False,
) -> PolicyMaker:
    """Load a model and return the factory of its policy for a group of test tasks.

    Args:
        name: `icl:BASE` for a base without fine-tuning, else a run folder.
        bed: the benchmark, which has the demonstrations.
        schema: text schema for `icl:`; a run uses the schema of its training.
        quantize: `nf4` to load the base of `icl:` in 4 bits.
        backend: `vllm` to score with vLLM, which supports `icl:` without quantization.
        trust_remote_code: run the Python code in the repository of the base.

    Raises:
        ValueError: if the backend does not support the policy.
        BaseModelError: if a base is unavailable.
        StorageError: if a run folder cannot be read.

    """
    check_backend(name, backend, quantize)
    if not name.startswith(ICL):
        run = load_run(Path(name), trust_remote_code=trust_remote_code)
        written = _schema_for(run.header.config.schema, bed)
        _warn_of_training(
            name, run.header, run.header.config.support, bed.config, written
        )
        return maker_of(bed, written, run.tokenizer, run.model, name)
    base = name.removeprefix(ICL)
    chosen = schema or default_schema(base)
    written = _schema_for(chosen, bed)
    if (merged := read_merged(Path(base))) is not None:
        _warn_of_training(name, merged, merged.support, bed.config, written)
        if chosen != merged.schema:
            warnings.warn(
                f"`{name}`: trained in the schema `{merged.schema}`, evaluated in "
                f"`{chosen}`",
                stacklevel=2,
            )
    trust = {"trust_remote_code": trust_remote_code}
    if backend == "vllm":
        begin = partial(VllmRows, start_engine(base, **trust))
        return maker_of(bed, written, load_tokenizer(base, **trust), begin)
    model, tokenizer = load_base(base, quantize=quantize, **trust)
    return maker_of(bed, written, tokenizer, model.eval(), name)


def _schema_for(name: str, bed: Benchmark) -> Schema:
    config = bed.config
    spaces = config.family.spaces
    return make_schema(name, spaces, config.kind, rewards=config.rewards_seen)


def maker_of(
    bed: Benchmark,
    schema: Schema,
    tokenizer: PreTrainedTokenizerBase,
    model: CausalModel | Callable[[Sequence[Tokens]], Rows],
    name: str = "model",
) -> PolicyMaker:
    """Return the policy factory of a benchmark; see `policy_maker`."""
    paid = np.asarray(bed.tasks.world.reward)
    ends = float(paid.min()), float(paid.max())
    tasks = Situation(bed.support, bed.optimal_played, ends)
    return policy_maker(tasks, schema, tokenizer, model, name)


def policy_maker(
    tasks: Situation,
    schema: Schema,
    tokenizer: PreTrainedTokenizerBase,
    model: CausalModel | Callable[[Sequence[Tokens]], Rows],
    name: str = "model",
) -> PolicyMaker:
    """Return the policy factory for a model, or for a function that begins rows.

    Args:
        tasks: the tasks.
        schema: text schema of the episodes.
        tokenizer: the model's tokenizer.
        model: the model, or the function.
        name: name of the policy in warnings.

    """
    check_tokenizer(tokenizer, schema)
    support = episodes_of(tasks.support)
    if not isinstance(model, CausalModel):
        # vLLM limits its cache itself.
        return PolicyMaker(model, tokenizer, schema, support, sys.maxsize)

    def policy(begin: Callable[[Sequence[Tokens]], Rows]) -> LanguageModelPolicy:
        return PolicyMaker(begin, tokenizer, schema, support, 1)(slice(TASKS))

    some = jax.tree.map(lambda x: x[:TASKS, :EPISODES], tasks.played)
    if (why := why_whole(model, policy, some)) is not None:
        warnings.warn(f"`{name}`: {why}: {WHOLE}", stacklevel=3)
        begin = partial(WholeRows, model)
        return PolicyMaker(begin, tokenizer, schema, support, sys.maxsize)
    rows = rows_that_fit(model, _longest(tokenizer, schema, support, tasks))
    return PolicyMaker(partial(RowsInWindow, model), tokenizer, schema, support, rows)


def _longest(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    support: Sequence[Sequence[Episode]],
    tasks: Situation,
) -> int:
    """Return the most tokens of a task's demonstrations and one more episode."""
    unseen = longest_episode(schema, tasks.played.action.shape[-1], tasks.reward)
    texts = [render_prompt(schema, s, s[-1] if s else unseen) for s in support]
    return max(map(len, encode(tokenizer, texts)))


def _warn_of_training(
    name: str,
    trained: TrainedOn,
    support: int,
    config: EvaluationConfig,
    written: Schema,
) -> None:
    """Warn if a model's test tasks differ from its training tasks or overlap them."""
    tasks = dataclasses.asdict(trained)
    warn_of_other_tasks(name, tasks, config, support=support)
    try:
        known = family_of(tasks)
    except FamilyError:
        return  # its package is missing or has changed, so the overlap is unknown
    if overlap := config.family.covers(known):
        warnings.warn(f"`{name}`: {overlap}", stacklevel=3)
    seen = trained.observes_reward and config.rewards_seen
    if seen and reference_of(config.family) == trained.family:
        then = make_schema(written.name, known.spaces, trained.kind, rewards=True)
        if (texts := unlike_stages(then, written)) is not None:
            warnings.warn(
                f"`{name}`: its training texts write a stage as `{texts[0]}`, those of "
                f"the test as `{texts[1]}`, which it has not learned to read",
                stacklevel=3,
            )
