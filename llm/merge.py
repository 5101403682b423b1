"""Merge a run's adapter into its base: a model that other programs can load."""

import json
from pathlib import Path

from peft import PeftModel

from sdm.llm.run_folder import MERGED, RUN_VERSION
from sdm.llm.runs import load_run
from sdm.policies.policy_runs import TASKS
from sdm.storage.files import folder_in_progress, write_atomically


def merge(
    run: Path, out: Path, *, overwrite: bool = False, trust_remote_code: bool = False
) -> None:
    """Write a model folder with the adapter of `run` added to its base's weights.

    The base is loaded in full precision. If the run was trained on a 4-bit base, the
    merged model differs from the run by the quantization error. To measure the
    difference, evaluate both.

    Args:
        run: a run folder.
        out: the folder to write; it holds weights, tokenizer and `merged.json`.
        overwrite: replace `out`.
        trust_remote_code: run the Python code in the repository of the base.

    Raises:
        StorageError: if `run` is not a run folder, or `out` cannot be written.
        BaseModelError: if the base is unavailable.

    """
    loaded = load_run(run, full_precision=True, trust_remote_code=trust_remote_code)
    config = loaded.header.config
    about = {
        "run_version": RUN_VERSION,
        "run": str(run),
        "base": config.base,
        "schema": config.schema,
        "support": config.support,
        **{name: getattr(loaded.header, name) for name in TASKS},
    }
    with folder_in_progress(
        out, about, inputs=(run,), overwrite=overwrite, resumable=False
    ) as folder:
        model = loaded.model
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        model.save_pretrained(str(folder))
        loaded.tokenizer.save_pretrained(folder)
        write_atomically(folder / MERGED, json.dumps(about, indent=2) + "\n")
