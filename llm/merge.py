"""Merge the adapter of a run into its base: one plain model, for any other program."""

import json
from pathlib import Path

from peft import PeftModel

from sdm.llm.runs import MERGED, load_run
from sdm.storage.files import folder_in_progress, write_atomically


def merge(run: Path, out: Path, *, overwrite: bool = False) -> None:
    """Write a model folder with the adapter of `run` added to its base's weights.

    The base is loaded in full: where the run was trained on a 4-bit base, the merged
    model differs from the run by what those 4 bits had rounded away. Evaluate the run
    itself to measure it.

    Args:
        run: a run folder.
        out: the folder to write; it holds weights, tokeniser and `merged.json`.
        overwrite: replace `out`.

    Raises:
        StorageError: if `run` is no run folder, or `out` cannot be written.
        BaseModelError: if the base cannot be had.

    """
    loaded = load_run(run, quantize=None)
    about = {
        "run": str(run),
        "base": loaded.config["base"],
        "schema": loaded.config["schema"],
        "support": loaded.config["support"],
        **loaded.tasks,
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
