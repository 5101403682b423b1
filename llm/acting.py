"""From a policy's name to a language model that acts: `icl:BASE` or a run folder."""

import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.data.request import family_header, family_of
from sdm.llm.bases import CausalModel, load_base, load_tokenizer
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.recipes import RECIPES
from sdm.llm.runs import MERGED, load_run
from sdm.llm.schema import Schema, make_schema
from sdm.llm.scoring import CachedRows, Rows, Tokens, encode, rows_that_fit
from sdm.llm.tokens import check_tokenizer
from sdm.llm.vllm_rows import VllmRows, start_engine


def default_schema(base: str) -> str:
    """The schema a base was, or is, fine-tuned in unless told otherwise."""
    if (Path(base) / MERGED).is_file():
        return str(json.loads((Path(base) / MERGED).read_text("utf-8"))["schema"])
    return str(RECIPES.get(base, {}).get("schema", "paper"))


def _warn_of_another_test(
    name: str, tasks: Mapping[str, Any], support: int, config: EvaluationConfig
) -> None:
    """Point out that a model was trained for another test, or on its test tasks."""
    tested = {
        **family_header(config.family, config.kind),
        "horizon": config.horizon,
        "observes_reward": config.rewards_seen,
    }
    trained, played = (
        f"{about['family']} tasks ({about['kind']}) of {about['horizon']} stages after "
        f"{shown} demonstration{'s' * (shown != 1)}, rewards "
        f"{'observed' if about['observes_reward'] else 'not observed'}"
        for about, shown in ((tasks, support), (tested, config.support))
    )
    if trained != played:
        warnings.warn(
            f"`{name}` was trained on {trained}: this test plays {played}",
            stacklevel=3,
        )
    if tasks["family"] == tested["family"]:
        shared = config.family.covers(family_of(tasks))
        if shared is not None:
            warnings.warn(f"`{name}`: {shared}", stacklevel=3)


def check_backend(name: str, backend: str | None) -> None:
    """Raise `ValueError` where vLLM is to play a run folder."""
    if backend == "vllm" and not name.startswith("icl:"):
        raise ValueError(
            f"vLLM takes whole models: `sdm merge {name} --out MERGED`, then "
            "`--policy icl:./MERGED`"
        )


@dataclass(frozen=True)
class PolicyMaker:
    """Makes a language model's policy for a group of test tasks.

    Attributes:
        begin: makes the rows in which it scores texts that go on from the given ones.
        tokenizer: the model's tokeniser.
        schema: how episodes are written.
        support: the demonstrations of each task.
        actions: number of actions to choose from.
        rows: episodes whose texts fit the memory together.

    """

    begin: Callable[[Sequence[Tokens]], Rows]
    tokenizer: PreTrainedTokenizerBase
    schema: Schema
    support: Sequence[Sequence[Episode]]
    actions: int
    rows: int

    def __call__(self, group: slice) -> LanguageModelPolicy:
        """Its policy for these tasks."""
        return LanguageModelPolicy(
            self.begin, self.tokenizer, self.schema, self.support[group], self.actions
        )


def _longest(
    tokenizer: PreTrainedTokenizerBase,
    schema: Schema,
    support: Sequence[Sequence[Episode]],
    horizon: int,
) -> int:
    """Tokens of the demonstrations of a task and of an episode as long as one."""
    reward = max(schema.contents.levels, default=-0.05)  # the longest there is
    unseen = Episode((0,) * horizon, (0,) * horizon, (reward,) * horizon)
    texts = [render_prompt(schema, s, s[-1] if s else unseen) for s in support]
    return max(map(len, encode(tokenizer, texts)))


def language_model_policy(
    name: str,
    bed: Benchmark,
    *,
    schema: str | None = None,
    quantize: str | None = None,
    backend: str | None = None,
) -> PolicyMaker:
    """Load a model and return what makes its policy for a group of test tasks.

    Args:
        name: `icl:BASE` for a base as it is, else a run folder.
        bed: the test, whose demonstrations the model is shown.
        schema: wording for `icl:`; a run is read in the schema it was trained in.
        quantize: `nf4` to load the base of `icl:` in 4 bits.
        backend: `vllm` to score by vLLM, which takes `icl:` without quantisation.

    Raises:
        ValueError: if the backend does not take the policy.
        BaseModelError: if a base cannot be had.
        StorageError: if a run folder cannot be read.

    """
    model: CausalModel | None = None
    begin: Callable[[Sequence[Tokens]], Rows]
    check_backend(name, backend)
    if backend == "vllm":
        if quantize:
            raise ValueError("vLLM takes a base as it is: leave out `--quantize`")
        base = name.removeprefix("icl:")
        begin = partial(VllmRows, start_engine(base))
        tokenizer, wording = load_tokenizer(base), schema or default_schema(base)
    elif name.startswith("icl:"):
        base = name.removeprefix("icl:")
        model, tokenizer = load_base(base, quantize=quantize)
        begin = partial(CachedRows, model.eval())
        wording = schema or default_schema(base)
    else:
        run = load_run(Path(name))
        model, tokenizer = run.model, run.tokenizer
        begin = partial(CachedRows, model)
        wording = run.config["schema"]
        _warn_of_another_test(name, run.tasks, run.config["support"], bed.config)
    if (merged := Path(name.removeprefix("icl:")) / MERGED).is_file():
        about = json.loads(merged.read_text("utf-8"))
        _warn_of_another_test(name, about, about["support"], bed.config)
        if wording != about["schema"]:
            warnings.warn(
                f"`{name}` was trained in the schema {about['schema']}: it is read in "
                f"{wording}",
                stacklevel=2,
            )
    support, config = episodes_of(bed.support), bed.config
    spaces = config.family.spaces
    written = make_schema(wording, spaces, config.kind, rewards=config.rewards_seen)
    check_tokenizer(tokenizer, written)
    rows = sys.maxsize  # vLLM keeps no more than fits
    if model is not None:
        longest = _longest(tokenizer, written, support, bed.config.horizon)
        rows = rows_that_fit(model, longest)
    actions = len(spaces.actions)
    return PolicyMaker(begin, tokenizer, written, support, actions, rows)
