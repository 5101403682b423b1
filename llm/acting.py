"""From a policy's name to a language model that acts: `icl:BASE` or a run folder."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

from sdm.llm.bases import CausalModel, load_base
from sdm.llm.policy import LanguageModelPolicy, episodes_of
from sdm.llm.recipes import RECIPES
from sdm.llm.runs import MERGED, load_run
from sdm.llm.serialize import SCHEMAS
from sdm.llm.test_bed import TestBed


def default_schema(base: str) -> str:
    """The schema a base was, or is, fine-tuned in unless told otherwise."""
    if (Path(base) / MERGED).is_file():
        return str(json.loads((Path(base) / MERGED).read_text("utf-8"))["schema"])
    return str(RECIPES.get(base, {}).get("schema", "paper"))


def language_model_policy(
    name: str, bed: TestBed, *, schema: str | None = None, quantize: str | None = None
) -> Callable[[slice], LanguageModelPolicy]:
    """Load a model and return what makes its policy for a group of test tasks.

    Args:
        name: `icl:BASE` for a base as it is, else a run folder.
        bed: the test, whose demonstrations the model is shown.
        schema: wording for `icl:`; a run is read in the schema it was trained in.
        quantize: `nf4` to load the base of `icl:` in 4 bits.

    Raises:
        BaseModelError: if a base cannot be had.
        DatasetError: if a run folder cannot be read.

    """
    if name.startswith("icl:"):
        base = name.removeprefix("icl:")
        loaded, tokenizer = load_base(base, quantize=quantize)
        model: CausalModel = loaded.eval()
        wording = schema or default_schema(base)
    else:
        run = load_run(Path(name))
        model, tokenizer, wording = run.model, run.tokenizer, run.config["schema"]
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
    support = episodes_of(bed.support)
    actions = bed.config.family.actions

    def make(group: slice) -> LanguageModelPolicy:
        return LanguageModelPolicy(
            model, tokenizer, SCHEMAS[wording], support[group], actions
        )

    return make
