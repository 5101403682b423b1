"""Training of decision-pretrained transformers on an oracle dataset.

The loss is the cross-entropy of the optimal action after every nonempty prefix of the
context. From Lee et al. (2023): AdamW, weight decay 1e-4, batches of 64, learning rate
1e-3. Our change: the learning rate decays to zero with a cosine schedule.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jaxtyping import Array, Float, Int

from sdm.data.benchmark import Shown
from sdm.data.shards import read_manifest, read_shards
from sdm.policies.dpt import (
    DPT,
    DPTShape,
    HistoryPolicy,
    one_after_another,
    table_policy,
    transitions_of,
)
from sdm.policies.dpt_checkpoint import flat_arrays, restore, save_state
from sdm.policies.dpt_config import DPTConfig
from sdm.policies.dpt_samples import Pool, make_pool, sample, shape_for
from sdm.policies.policy_runs import (
    LearnedRun,
    PolicyRecord,
    save_policy_run,
    tasks_of,
)
from sdm.policies.prepared import Prepared, table
from sdm.storage.files import folder_in_progress, write_atomically
from sdm.tasks.rollout import Trajectory

CHECKPOINT = "checkpoint.safetensors"
STEPS_TOGETHER = 100  # steps between two reports of the loss
SECONDS_BETWEEN = 30.0  # seconds between two checkpoints


def loss_of(
    params: Any,
    shape: DPTShape,
    batch: tuple[Float[Array, "B L F"], Int[Array, " B"], Float[Array, "B L"]],
) -> Float[Array, ""]:
    """Return the weighted mean cross-entropy of the optimal action, in nats.

    Args:
        params: parameters of the network.
        shape: its dimensions.
        batch: tokens, optimal actions, and the weight of every prefix.

    """
    tokens, wanted, weight = batch
    logits = DPT(shape).apply(params, tokens)
    assert isinstance(logits, jax.Array)
    label = jnp.broadcast_to(wanted[:, None], weight.shape)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return (each * weight).sum() / weight.sum()


class Learner:
    """The network in training, with its optimizer.

    Attributes:
        state: step, seconds, parameters and optimizer state, which a checkpoint stores.

    """

    def __init__(self, config: DPTConfig, shape: DPTShape, pool: Pool) -> None:
        """Initialize random weights, and compile the step.

        Args:
            config: options of the training.
            shape: dimensions of the network.
            pool: data that samples are drawn from.

        """
        self._pool = pool
        self._root = jax.random.key(config.seed)
        optimiser = optax.adamw(
            optax.cosine_decay_schedule(config.learning_rate, config.steps),
            weight_decay=config.weight_decay,
        )
        params = DPT(shape).init(
            jax.random.fold_in(self._root, 0),
            jnp.zeros((1, 2, shape.features), jnp.float32),
        )
        self.state: dict[str, Any] = {
            "step": np.int64(0),
            "seconds": np.float64(0),
            "params": params,
            "optimiser": optimiser.init(params),
        }

        @partial(jax.jit, static_argnames="count")
        def advance(
            pool: Pool, params: Any, memory: Any, first: Array, count: int
        ) -> Any:
            def one(carry: Any, step: Array) -> Any:
                params, memory = carry
                key = jax.random.fold_in(jax.random.fold_in(self._root, 1), step)
                batch = sample(key, pool, config, shape)
                loss, gradient = jax.value_and_grad(loss_of)(params, shape, batch)
                with jax.numpy_dtype_promotion("standard"):  # optax relies on it
                    change, memory = optimiser.update(gradient, memory, params)
                return (optax.apply_updates(params, change), memory), loss

            steps = first + jnp.arange(count, dtype=jnp.int32)
            carry, losses = jax.lax.scan(one, (params, memory), steps)
            return *carry, losses.mean()

        self._advance = advance

    def learn(self, count: int) -> float:
        """Take `count` steps, and return the mean loss over them.

        Raises:
            FloatingPointError: if the loss is not finite.

        """
        start, step = time.monotonic(), int(self.state["step"])
        params, memory, loss = self._advance(
            self._pool,
            self.state["params"],
            self.state["optimiser"],
            jnp.int32(step),
            count,
        )
        if not np.isfinite(loss):
            raise FloatingPointError(
                "training diverged: a loss is not finite; lower the learning rate"
            )
        self.state |= {
            "step": np.int64(step + count),
            "seconds": self.state["seconds"] + (time.monotonic() - start),
            "params": params,
            "optimiser": memory,
        }
        return float(loss)


def train_dpt(
    config: DPTConfig,
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> LearnedRun:
    """Train on an oracle dataset and write the folder of the policy `out`.

    Args:
        config: options of the training.
        out: the folder; its name is `out.partial` until training is complete.
        resume: resume an unfinished run of the same configuration.
        overwrite: replace `out`.
        progress: called with the completed steps and all steps.

    Raises:
        StorageError: if the data or a checkpoint cannot be read, or `out` cannot be
            created.
        ValueError: if a task has too few episodes.
        FloatingPointError: if the training diverges.

    """
    data = Path(config.data)
    manifest = read_manifest(data)
    needed = config.support + 1
    if config.contexts == "trajectories" and manifest["trajectories"] < needed:
        raise ValueError(
            f"dataset `{data}`: {config.support} demonstrations and a query need "
            f"{needed} trajectories of each task, found {manifest['trajectories']}"
        )
    plan = {"dpt": dataclasses.asdict(config), "data": manifest["shards"]}
    with folder_in_progress(
        out, plan, inputs=(data,), resume=resume, overwrite=overwrite
    ) as folder:
        shape = shape_for(config, manifest)
        pool = make_pool(manifest, read_shards(data), contexts=config.contexts)
        learner = Learner(config, shape, pool)
        history = _train(learner, config.steps, folder, progress)
        run = LearnedRun(
            kind="dpt",
            arrays=flat_arrays(learner.state["params"]),
            about=PolicyRecord(
                tasks=tasks_of(manifest),
                config=dataclasses.asdict(config),
                shape=dataclasses.asdict(shape),
                report={
                    "train_loss": history[-1]["loss"],
                    "seconds": float(learner.state["seconds"]),
                    "steps": config.steps,
                },
            ),
        )
        save_policy_run(folder, run, by_torch=False)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return run


def _train(
    learner: Learner,
    steps: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> list[dict[str, float | int]]:
    """Train from the folder's checkpoint, if any; return the losses."""
    checkpoint, metrics = folder / CHECKPOINT, folder / "metrics.jsonl"
    if checkpoint.is_file():
        learner.state = restore(learner.state, checkpoint)
    history = _read_metrics(metrics, int(learner.state["step"]))
    saved = time.monotonic()
    while (step := int(learner.state["step"])) < steps:
        count = min(STEPS_TOGETHER, steps - step)
        history.append({"step": step + count, "loss": learner.learn(count)})
        progress(step + count, steps)
        if time.monotonic() - saved > SECONDS_BETWEEN:
            _write_metrics(metrics, history)
            save_state(learner.state, checkpoint)
            saved = time.monotonic()
    _write_metrics(metrics, history)
    return history


def _read_metrics(path: Path, upto: int) -> list[dict[str, float | int]]:
    """Return the lines of the steps that a resumed training does not repeat."""
    if not path.is_file():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["step"] <= upto]


def _write_metrics(path: Path, history: list[dict[str, float | int]]) -> None:
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in history))


def prepare_dpt(run: LearnedRun, bed: Shown) -> Prepared:
    """Return a learned policy for the tasks of a benchmark."""
    about = {**run.about.shape, "components": tuple(run.about.shape["components"])}
    shape = DPTShape(**about)
    params = traverse_util.unflatten_dict(dict(run.arrays), sep="/")
    horizon, support = bed.config.horizon, bed.support
    if not shape.rewards:
        nothing = jnp.zeros_like(support.reward)
        support = Trajectory(support.observation, support.action, nothing)
    if bed.config.kind == "mdp":
        return table(bed, table_policy(shape, params, support, horizon=horizon))
    context = one_after_another(transitions_of(support))
    return Prepared(HistoryPolicy(params, context, shape, horizon))
