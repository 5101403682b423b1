"""Run folders of language models with random weights."""

from pathlib import Path
from typing import Any

import yaml

from sdm.data.request import family_header
from sdm.llm.recipes import FinetuneConfig
from sdm.llm.run_folder import CONFIG, METRICS, RunHeader
from sdm.llm.tiny import tiny_model, tiny_tokenizer
from sdm.tasks.family import Kind, TaskFamily


def untrained_run(
    folder: Path, family: TaskFamily, kind: Kind, horizon: int, **options: Any
) -> str:
    """Write the folder of `tiny` as if it had been trained on these tasks."""
    config = FinetuneConfig(
        "data", "tiny", **{"schema": "compact", "lora_rank": 0, **options}
    )
    header = RunHeader(
        **family_header(family, kind),
        observes_reward=kind in family.defaults.observes_reward,
        horizon=horizon,
        config=config,
        base=None,
    )
    tiny_model(0).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / CONFIG).write_text(yaml.safe_dump(header.written()))
    (folder / METRICS).touch()
    return str(folder)
