"""Forgetting: what tuning as a judge and as a policy costs in language.

A model is tuned on texts of a family, in blocks of equal length, with the same number
of tokens and the same optimiser: once on the answers of an exact judge, once on
episodes of the oracle; once with an adapter, once with all weights. Before and after,
it is tested on held-out text, on small language tasks, and on held-out blocks of its
tuning texts. Klissarov et al. (2024) compare the forgetting of both ways to tune.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from sdm.feedback.cells import interval, run_cells, seeds_text
from sdm.feedback.choices import ChoiceScorer
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.forgetting_config import ForgettingConfig
from sdm.feedback.language_tests import (
    blocks_of,
    held_out_text,
    language_tasks,
    mean_loss,
    perplexity,
    task_accuracy,
)
from sdm.feedback.tuning_texts import policy_texts, reward_texts
from sdm.llm.bases import CausalModel
from sdm.llm.devices import threads_for
from sdm.llm.tokens import Tokens, encode
from sdm.llm.training import make_trainer, prepare_model, train

TEXTS = {"policy": policy_texts, "reward": reward_texts}
HELD_OUT = 4  # blocks of the tuning texts
MEASURES = ("perplexity", "tuning_loss", "accuracy")


def run_forgetting(
    config: ForgettingConfig,
    study: FeedbackConfig,
    *,
    seeds: Sequence[int],
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> dict[str, Any]:
    """Tune in both ways, with adapters and all weights, and return the report.

    Args:
        config: the model and the training.
        study: the tasks of the tuning texts.
        seeds: random seeds of texts, order and weights.
        out: folder to write; an interrupted run continues after complete trainings.
        resume: continue an unfinished run.
        overwrite: replace `out`.
        progress: called with the name of a step, and optimizer steps done and in all.

    Raises:
        ValueError: if there are too few texts for the tokens.
        BaseModelError: if the base is unavailable.
        StorageError: if `out` cannot be written.

    """
    cells = {
        f"{tuning}-{'adapter' if adapter else 'full'}-{seed}": partial(
            forgetting_cell,
            config,
            study,
            tuning,
            seed,
            adapter=adapter,
            progress=progress,
        )
        for seed in seeds
        for adapter in (True, False)
        for tuning in TEXTS
    }
    plan = {"forgetting": vars(config), **study.describe(), "seeds": list(seeds)}
    return run_cells(
        cells,
        partial(forgetting_report, config, study),
        forgetting_card,
        plan,
        out,
        resume=resume,
        overwrite=overwrite,
        by_torch=True,
    )


def forgetting_cell(
    config: ForgettingConfig,
    study: FeedbackConfig,
    tuning: str,
    seed: int,
    folder: Path | None,
    *,
    adapter: bool,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Tune a model in one way, and return its tests before and after.

    Raises:
        ValueError: if it needs a folder and has none, a block exceeds the model's
            context, or there are too few texts.

    """
    if folder is None:
        raise ValueError("out: a folder is needed, since training writes checkpoints")
    recipe = config.finetune(adapter=adapter, seed=seed)
    model, tokenizer = prepare_model(recipe)
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and config.block > most:
        raise ValueError(
            f"block = {config.block}: must fit the model's context of {most} tokens"
        )
    blocks = tuning_blocks(config, tokenizer, TEXTS[tuning](study, seed))
    tests = partial(language_tests, config, tokenizer, seed, blocks[:HELD_OUT])
    name = f"{tuning}, {'adapter' if adapter else 'all weights'}, seed {seed}"
    with threads_for(model):
        before = tests(model)
        trainer = make_trainer(
            recipe,
            folder,
            1,
            model,
            tokenizer,
            (_dataset(blocks[HELD_OUT:]), _dataset(blocks[:HELD_OUT])),
            partial(progress, name),
        )
        train(trainer, recipe, folder)
        after = tests(model)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return {
        "tuning": tuning,
        "weights": "adapter" if adapter else "full",
        "seed": seed,
        "tokens": config.block * len(blocks[HELD_OUT:]),
        "before": before,
        "after": after,
    }


def tuning_blocks(
    config: ForgettingConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
) -> list[Tokens]:
    """Return the held-out blocks, then those for training: as many as configured.

    Raises:
        ValueError: if the texts have too few tokens.

    """
    wanted = config.tokens // config.block + HELD_OUT
    (ids,) = encode(tokenizer, ["\n\n".join(texts)])
    if len(ids) < wanted * config.block:
        raise ValueError(
            f"tokens = {config.tokens}: the texts have {len(ids)} tokens, and "
            f"{wanted * config.block} are needed: raise `--tasks`"
        )
    return blocks_of(ids, config.block)[:wanted]


def _dataset(blocks: Sequence[Tokens]) -> Dataset:
    return Dataset.from_dict(
        {
            "input_ids": list(blocks),
            "labels": list(blocks),
            "length": [len(block) for block in blocks],
        }
    )


def language_tests(
    config: ForgettingConfig,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    held_out: Sequence[Tokens],
    model: CausalModel,
) -> dict[str, Any]:
    """Return perplexity, accuracy by task and in all, and the tuning loss."""
    tasks = language_tasks(config.questions, seed=seed)
    training = model.training
    by_task = task_accuracy(ChoiceScorer(model, tokenizer), tasks)
    model.train(training)
    return {
        "perplexity": perplexity(
            model,
            tokenizer,
            held_out_text(),
            tokens=config.held_out_tokens,
            window=config.block,
        ),
        "tuning_loss": mean_loss(model, held_out),
        "accuracy": float(np.mean(list(by_task.values()))),
        "by_task": by_task,
    }


def forgetting_report(
    config: ForgettingConfig,
    study: FeedbackConfig,
    cells: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return means over seeds, with intervals, before and after each way to tune."""
    rows = []
    for way in dict.fromkeys((cell["tuning"], cell["weights"]) for cell in cells):
        mine = [cell for cell in cells if (cell["tuning"], cell["weights"]) == way]
        row: dict[str, Any] = {"tuning": way[0], "weights": way[1]}
        for name in MEASURES:
            row[f"{name}_before"] = interval([c["before"][name] for c in mine])
            row[f"{name}_after"] = interval([c["after"][name] for c in mine])
            change = [c["after"][name] - c["before"][name] for c in mine]
            row[f"{name}_change"] = interval(change)
        rows.append(row)
    return {
        "base": config.base,
        "family": study.family.name,
        "tokens": cells[0]["tokens"],
        "seeds": len({cell["seed"] for cell in cells}),
        "rows": rows,
    }


def forgetting_card(report: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    lines = [
        f"# Forgetting of `{report['base']}` tuned on `{report['family']}`",
        "",
        f"{report['tokens']} training tokens, {seeds_text(report['seeds'])}. Made by "
        "`sdm forgetting`. Each cell has the mean before → after.",
        "",
        "| tuned as | weights | perplexity of held-out text | right answers, % | "
        "loss on held-out tuning text |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        cells = [
            f"{factor * row[f'{name}_before']['mean']:.{digits}f} → "
            f"{factor * row[f'{name}_after']['mean']:.{digits}f}"
            for name, factor, digits in (
                ("perplexity", 1, 2),
                ("accuracy", 100, 1),
                ("tuning_loss", 1, 3),
            )
        ]
        lines.append(f"| {row['tuning']} | {row['weights']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
