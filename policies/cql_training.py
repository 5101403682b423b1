"""Conservative Q-learning on the pooled episodes of a dataset, with d3rlpy.

The network's inputs are the observation, one-hot, and the stage as a share of the
horizon. It reads no demonstrations, so it cannot distinguish tasks, and learns one
policy for all of them. Only its table of values over stages and symbols is stored.

Source: Kumar, Zhou, Tucker, Levine (2020), for discrete actions: conservative weight 1,
learning rate 6.25e-5, batches of 32. Our change: the target network is updated every
200 steps, since d3rlpy's default of 8,000 is meant for millions of steps.
"""

import contextlib
import dataclasses
import io
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int

from sdm.data.request import family_of, params_of
from sdm.data.shards import parameters, read_manifest, read_shards
from sdm.policies.cql_config import CQLConfig
from sdm.policies.policy_runs import (
    LearnedRun,
    PolicyRecord,
    save_policy_run,
    tasks_of,
)
from sdm.storage.files import folder_in_progress, write_atomically

TARGET_INTERVAL = 200


def features(
    seen: Int[np.ndarray, "*B"],
    stage: Int[np.ndarray, "*B"],
    symbols: int,
    horizon: int,
) -> Float[np.ndarray, "*B F"]:
    """Return the network's inputs: the one-hot symbol, and the stage's share.

    Args:
        seen: observed symbols.
        stage: stages, from 0.
        symbols: number of distinct symbols.
        horizon: decisions per episode.

    Returns:
        Features, [*B, symbols + 1].

    """
    one_hot = np.eye(symbols, dtype=np.float32)[seen]
    share = (stage / horizon).astype(np.float32)
    return np.concatenate([one_hot, share[..., None]], axis=-1)


def train_cql(
    config: CQLConfig,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> LearnedRun:
    """Train on an oracle dataset and write the folder of the policy `out`.

    Args:
        config: options of the training.
        out: the folder; its name is `out.partial` until training is complete.
        overwrite: replace `out`.
        progress: called with the completed steps and all steps.

    Raises:
        StorageError: if the data cannot be read or `out` cannot be created.
        FloatingPointError: if the training diverges.

    """
    manifest, data = read_manifest(Path(config.data)), Path(config.data)
    plan = {"cql": dataclasses.asdict(config), "data": manifest["shards"]}
    with (
        folder_in_progress(
            out, plan, inputs=(data,), overwrite=overwrite, resumable=False
        ) as folder,
        _quiet_and_seeded(config.seed),
    ):
        start = time.monotonic()
        q, lines = _learn(config, manifest, progress)
        write_atomically(
            folder / "metrics.jsonl",
            "".join(json.dumps(line, default=float) + "\n" for line in lines),
        )
        run = LearnedRun(
            kind="cql",
            arrays={"q": np.asarray(q, np.float32)},
            about=PolicyRecord(
                tasks=tasks_of(manifest),
                config=dataclasses.asdict(config),
                shape={},
                report={
                    "train_loss": float(lines[-1]["loss"]),
                    "seconds": time.monotonic() - start,
                    "steps": config.steps,
                },
            ),
        )
        save_policy_run(folder, run, by_torch=True)
    return run


def _learn(
    config: CQLConfig, manifest: Mapping[str, Any], progress: Callable[[int, int], None]
) -> tuple[Float[np.ndarray, "T O A"], list[dict[str, Any]]]:
    """Return the table of values, and the metrics of every epoch.

    Raises:
        FloatingPointError: if the training diverges.

    """
    from d3rlpy.algos import DiscreteCQLConfig
    from d3rlpy.logging import NoopAdapterFactory

    family, kind = family_of(manifest), manifest["kind"]
    horizon, symbols = manifest["horizon"], family.spaces.symbols(kind)
    actions = len(family.spaces.actions)
    table = read_shards(Path(config.data))
    first = params_of(parameters(table.slice(0, 1)))
    learner = DiscreteCQLConfig(
        batch_size=config.batch_size,
        gamma=float(family.model(first, kind).discount),
        learning_rate=config.learning_rate,
        alpha=config.conservative,
        target_update_interval=TARGET_INTERVAL,
    ).create(device="cuda:0" if torch.cuda.is_available() else "cpu:0")
    # d3rlpy runs complete epochs only, so their length must divide the steps.
    lengths = range(min(1000, config.steps), 0, -1)
    between = next(n for n in lengths if config.steps % n == 0)
    log = learner.fit(
        _transitions(table, symbols, actions, horizon),
        n_steps=config.steps,
        n_steps_per_epoch=between,
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
        callback=lambda learner, epoch, step: progress(step, config.steps),
    )
    every = np.indices((horizon, symbols, actions)).reshape(3, -1)
    q = learner.predict_value(features(every[1], every[0], symbols, horizon), every[2])
    lines = [{"step": epoch * between, **metrics} for epoch, metrics in log]
    if not (np.isfinite(q).all() and np.isfinite(lines[-1]["loss"])):
        raise FloatingPointError(
            "training diverged: a value is not finite; lower the learning rate"
        )
    return q.reshape(horizon, symbols, actions), lines


def _transitions(table: pa.Table, symbols: int, actions: int, horizon: int) -> Any:
    """Return all episodes of a dataset in d3rlpy's format."""
    from d3rlpy.constants import ActionSpace
    from d3rlpy.dataset import MDPDataset

    seen, action, reward = (
        np.stack(table[name].to_numpy()) for name in ("observation", "action", "reward")
    )
    stage = np.broadcast_to(np.arange(horizon), seen.shape)
    return MDPDataset(
        features(seen, stage, symbols, horizon).reshape(-1, symbols + 1),
        action.reshape(-1),
        reward.reshape(-1).astype(np.float32),
        (stage == horizon - 1).reshape(-1).astype(np.float32),
        action_space=ActionSpace.DISCRETE,
        action_size=actions,
    )


@contextlib.contextmanager
def _quiet_and_seeded(seed: int) -> Iterator[None]:
    """Seed d3rlpy, hide its log, and restore the global random generators afterwards.

    d3rlpy draws from the global generators.
    """
    plain, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with contextlib.redirect_stderr(io.StringIO()):  # hides warnings of a dependency
        import d3rlpy
        import structlog
    log = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    with torch.random.fork_rng():
        d3rlpy.seed(seed)
        try:
            yield
        finally:
            structlog.configure(**log)
            random.setstate(plain)
            np.random.set_state(numpy_state)  # noqa: NPY002
