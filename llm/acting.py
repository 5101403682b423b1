"""From a policy's name to a language model that acts: `icl:BASE` or a run folder."""

import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sdm.llm.bases import load_base, load_tokenizer
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.recipes import RECIPES
from sdm.llm.runs import MERGED, load_run
from sdm.llm.scoring import CachedRows, Rows, Tokens
from sdm.llm.serialize import schema_for
from sdm.llm.test_bed import TestBed
from sdm.llm.vllm_rows import VllmRows, start_engine


def default_schema(base: str) -> str:
    """The schema a base was, or is, fine-tuned in unless told otherwise."""
    if (Path(base) / MERGED).is_file():
        return str(json.loads((Path(base) / MERGED).read_text("utf-8"))["schema"])
    return str(RECIPES.get(base, {}).get("schema", "paper"))


def language_model_policy(
    name: str,
    bed: TestBed,
    *,
    schema: str | None = None,
    quantize: str | None = None,
    backend: str | None = None,
) -> Callable[[slice], LanguageModelPolicy]:
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
        DatasetError: if a run folder cannot be read.

    """
    begin: Callable[[Sequence[Tokens]], Rows]
    if backend == "vllm":
        if not name.startswith("icl:"):
            raise ValueError(
                f"vLLM takes whole models: `sdm merge {name} --out MERGED`, then "
                "`--policy icl:./MERGED`"
            )
        if quantize:
            raise ValueError("vLLM takes a base as it is: leave out `--quantize`")
        base = name.removeprefix("icl:")
        begin = partial(VllmRows, start_engine(base))
        tokenizer, wording = load_tokenizer(base), schema or default_schema(base)
    elif name.startswith("icl:"):
        base = name.removeprefix("icl:")
        model, tokenizer = load_base(base, quantize=quantize)
        begin, wording = (
            partial(CachedRows, model.eval()),
            schema or default_schema(base),
        )
    else:
        run = load_run(Path(name))
        begin, tokenizer = partial(CachedRows, run.model), run.tokenizer
        wording = run.config["schema"]
        trained, tested = (
            f"over {horizon} stages after {support} demonstrations"
            for horizon, support in (
                (run.horizon, run.config["support"]),
                (bed.config.horizon, bed.config.support),
            )
        )
        if trained != tested:
            warnings.warn(
                f"`{name}` was trained {trained}: this test plays {tested}",
                stacklevel=2,
            )
    support, family = episodes_of(bed.support), bed.config.family
    written = schema_for(wording, family.grid)

    def make(group: slice) -> LanguageModelPolicy:
        return LanguageModelPolicy(
            begin, tokenizer, written, support[group], family.actions
        )

    return make
