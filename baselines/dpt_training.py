"""Training of decision-pretrained transformers, from an oracle dataset.

A sample is a task, a query with its optimal action, and a context: either episodes of
the oracle (`trajectories`, as Zhang, Aghaei, Saghafian, 2026, compare with) or
transitions from uniformly random states and actions (`transitions`, as in the
original). Where states are in sight, half of the queries are uniformly random states,
as in the original, and half are moments of the oracle's episodes: otherwise the one
cell of a Darkroom where to stay is hardly ever asked about. Where states are hidden,
all are such moments, and the episode's past is part of the context. The loss is the
cross-entropy of the optimal action after every prefix of the context but the empty one.

Original: AdamW, weight decay 1e-4, batches of 64, learning rate 1e-3. Ours: the
learning rate falls to zero along a cosine.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pyarrow.compute as pc
from flax import serialization, traverse_util
from jaxtyping import Array, Float, Int, Key
from safetensors.numpy import load_file, save_file

from sdm.baselines.dpt import (
    DPT,
    DPTShape,
    Transitions,
    followed_by,
    one_after_another,
    tokens_of,
    transitions_of,
)
from sdm.baselines.policy_runs import LearnedRun, PolicyRecord, save_policy_run
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.families import DarkroomFamily, family_of
from sdm.solvers_jax.models import MDP, POMDP, check_count
from sdm.solvers_jax.oracle_data import OracleConfig
from sdm.solvers_jax.oracle_tasks import sample_tasks
from sdm.solvers_jax.policies import draw
from sdm.solvers_jax.rollout import Trajectory
from sdm.solvers_jax.shards import (
    folder_in_progress,
    read_manifest,
    read_shards,
    temporary_name,
)

CHECKPOINT = "checkpoint.safetensors"
STEPS_TOGETHER = 100  # between two looks at the loss
SECONDS_BETWEEN = 30.0  # checkpoints
Contexts = Literal["trajectories", "transitions"]


@dataclass(frozen=True)
class DPTConfig:
    """What to learn from, and how.

    Attributes:
        data: the oracle dataset.
        contexts: `trajectories` of the oracle, or random `transitions`.
        support: episodes, or so many episodes' worth of transitions, in a context.
        steps: of the optimiser.
        batch_size: samples per step.
        learning_rate: at the beginning.
        weight_decay: of AdamW.
        layers: transformer blocks.
        width: of the network.
        heads: of attention.
        seed: of weights and samples.

    """

    data: str
    contexts: Contexts = "trajectories"
    support: int = 2
    steps: int = 20_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    layers: int = 4
    width: int = 32
    heads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that make no sense."""
        for name in ("support", "steps", "batch_size", "layers", "width", "heads"):
            check_count(name, getattr(self, name), 1)
        if self.width % self.heads:
            raise ValueError(
                f"width = {self.width} cannot be shared by {self.heads} heads"
            )
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}: must lie between 0 and 1"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pool:
    """What samples are made of.

    Attributes:
        played: the oracle's episodes of each task.
        optimal: an optimal action of each state and stage; None where states are
            hidden.
        world: the tasks' models.

    """

    played: Trajectory
    optimal: Int[Array, "N T S"] | None
    world: MDP | POMDP


def oracle_episodes(table: pa.Table, tasks: int) -> Trajectory:
    """The oracle's episodes of a dataset, [N, M, T]."""
    rows = table.filter(pc.invert(table["random"]))

    def column(name: str, kind: Any) -> Array:
        return jnp.asarray(
            np.stack(rows[name].to_numpy()).reshape(tasks, -1, len(rows[name][0])), kind
        )

    return Trajectory(
        column("observation", np.int32),
        column("action", np.int32),
        column("reward", np.float32),
    )


def make_pool(manifest: dict[str, Any], table: pa.Table) -> tuple[Pool, OracleConfig]:
    """Everything about the tasks of a dataset that samples are made of."""
    setting = manifest["setting"]
    config = OracleConfig(
        family_of(setting, manifest["family_config"]),
        manifest["horizon"],
        manifest["tasks"],
        manifest["trajectories"],
        manifest["seed"],
        setting=setting,
    )
    world = sample_tasks(0, config=config, size=config.tasks).world
    optimal = None
    if isinstance(world, MDP):
        solution = backward_induction(world, horizon=config.horizon)
        optimal = solution.policy.astype(jnp.int32)
    return Pool(oracle_episodes(table, config.tasks), optimal, world), config


def shape_for(config: DPTConfig, made: OracleConfig) -> DPTShape:
    """The network that fits a dataset."""
    hidden = made.setting in ("pomdp", "apomdp")
    return DPTShape(
        symbols=made.family.states,
        actions=made.family.actions,
        # A goal is looked for in the same way at every stage.
        stages=0 if isinstance(made.family, DarkroomFamily) else made.horizon,
        length=(config.support + hidden) * made.horizon,
        grid=made.family.grid or 0,
        layers=config.layers,
        width=config.width,
        heads=config.heads,
    )


def random_transitions(
    key: Key[Array, ""], world: MDP | POMDP, task: Int[Array, " B"], length: int
) -> Transitions:
    """Where uniformly random actions lead from uniformly random states."""
    states, actions = world.reward.shape[-2:]
    keys = jax.random.split(key, 5)
    shape = (len(task), length)
    state = jax.random.randint(keys[0], shape, 0, states, jnp.int32)
    action = jax.random.randint(keys[1], shape, 0, actions, jnp.int32)
    own = task[:, None]

    def drawn(key: Array, row: Array) -> Array:
        return draw(row, jax.random.uniform(key, shape, row.dtype))

    after = drawn(keys[2], world.transition[own, state, action])
    paid = world.reward[own, state, action].astype(jnp.float32)
    if isinstance(world, MDP):
        return Transitions(state, action, after, paid)
    assert world.initial_observation is not None
    seen = drawn(keys[3], world.initial_observation[own, state])
    following = drawn(keys[4], world.observation[own, action, after])
    return Transitions(seen, action, following, paid)


def sample(
    key: Key[Array, ""], pool: Pool, config: DPTConfig, shape: DPTShape
) -> tuple[Float[Array, "B L F"], Int[Array, " B"], Float[Array, "B L"]]:
    """A batch: tokens, optimal actions, and the weight of every prefix."""
    tasks, episodes, horizon = pool.played.action.shape
    which, query, moment, where, around = jax.random.split(key, 5)
    size = config.batch_size
    task = jax.random.randint(which, (size,), 0, tasks, jnp.int32)
    # Without replacement: what is queried is not shown.
    order = jax.vmap(lambda k: jax.random.permutation(k, episodes))(
        jax.random.split(query, size)
    )
    stage = jax.random.randint(moment, (size,), 0, horizon, jnp.int32)
    context = (
        one_after_another(
            transitions_of(_episodes(pool.played, task, order[:, : config.support]))
        )
        if config.contexts == "trajectories"
        else random_transitions(around, pool.world, task, config.support * horizon)
    )
    length = context.seen.shape[-1]
    own = _episodes(pool.played, task, order[:, -1:])
    row = jnp.arange(size, dtype=jnp.int32)
    met = own.observation[row, 0, stage]
    if pool.optimal is not None:
        anywhere = jax.random.randint(where, (size,), 0, shape.symbols, jnp.int32)
        seen = jnp.where(row % 2 == 0, anywhere, met)
        stage = stage if shape.stages else jnp.zeros_like(stage)
        wanted = pool.optimal[task, stage, seen]
        weight = jnp.ones((size, length + 1), jnp.float32)
    else:
        past = one_after_another(transitions_of(own))
        context = followed_by(context, past)
        seen, wanted = met, own.action[row, 0, stage]
        place = jnp.arange(length + horizon + 1, dtype=jnp.int32)
        known = place[None] <= length + stage[:, None]
        weight = known.astype(jnp.float32)
    weight = weight.at[:, 0].set(0)  # the empty prefix
    return tokens_of(shape, seen, stage, context), wanted, weight


def _episodes(
    played: Trajectory, task: Int[Array, " B"], chosen: Int[Array, "B N"]
) -> Trajectory:
    """Some episodes of some tasks."""
    return jax.tree.map(lambda x: x[task[:, None], chosen], played)


def loss_of(
    params: Any,
    shape: DPTShape,
    batch: tuple[Float[Array, "B L F"], Int[Array, " B"], Float[Array, "B L"]],
) -> Float[Array, ""]:
    """Mean cross-entropy of the optimal action over all prefixes."""
    tokens, wanted, weight = batch
    logits = DPT(shape).apply(params, tokens)
    assert isinstance(logits, jax.Array)
    label = jnp.broadcast_to(wanted[:, None], weight.shape)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return (each * weight).sum() / weight.sum()


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
        config: what to learn from, and how.
        out: the folder; `out.partial` until training is done.
        resume: go on with an unfinished run of the same configuration.
        overwrite: replace `out`.
        progress: called with the steps done and the steps there will be.

    Raises:
        DatasetError: if the data cannot be read or `out` cannot be begun.
        ValueError: if a task has too few episodes.
        FloatingPointError: if the training diverges.

    """
    manifest = read_manifest(Path(config.data))
    pool, made = make_pool(manifest, read_shards(Path(config.data)))
    shape = shape_for(config, made)
    needed = config.support + 1
    if config.contexts == "trajectories" and made.trajectories < needed:
        raise ValueError(
            f"{config.support} demonstrations and a query need {needed} trajectories "
            f"of each task: there are {made.trajectories}"
        )
    optimiser = optax.adamw(
        optax.cosine_decay_schedule(config.learning_rate, config.steps),
        weight_decay=config.weight_decay,
    )
    root = jax.random.key(config.seed)
    params = DPT(shape).init(
        jax.random.fold_in(root, 0), jnp.zeros((1, 2, shape.features), jnp.float32)
    )
    state: dict[str, Any] = {
        "step": np.int64(0),
        "seconds": np.float64(0),
        "params": params,
        "optimiser": optimiser.init(params),
    }

    @partial(jax.jit, static_argnames="count")
    def advance(pool: Pool, params: Any, memory: Any, first: Array, count: int) -> Any:
        def one(carry: Any, step: Array) -> Any:
            params, memory = carry
            batch = sample(
                jax.random.fold_in(jax.random.fold_in(root, 1), step),
                pool,
                config,
                shape,
            )
            loss, slope = jax.value_and_grad(loss_of)(params, shape, batch)
            with jax.numpy_dtype_promotion("standard"):  # optax relies on it
                change, memory = optimiser.update(slope, memory, params)
            return (optax.apply_updates(params, change), memory), loss

        steps = first + jnp.arange(count, dtype=jnp.int32)
        carry, losses = jax.lax.scan(one, (params, memory), steps)
        return *carry, losses.mean()

    plan = {"dpt": dataclasses.asdict(config), "data": manifest["shards"]}
    with folder_in_progress(
        out, plan, inputs=(Path(config.data),), resume=resume, overwrite=overwrite
    ) as folder:
        checkpoint, metrics = folder / CHECKPOINT, folder / "metrics.jsonl"
        if checkpoint.is_file():
            state = restore(state, checkpoint)
        history = _read_metrics(metrics, int(state["step"]))
        saved = start = time.monotonic()
        before = float(state["seconds"])
        while (step := int(state["step"])) < config.steps:
            count = min(STEPS_TOGETHER, config.steps - step)
            state["params"], state["optimiser"], loss = advance(
                pool, state["params"], state["optimiser"], jnp.int32(step), count
            )
            if not np.isfinite(loss):
                raise FloatingPointError(
                    "the training diverged: a loss is not finite; lower the learning "
                    "rate"
                )
            state["step"] = np.int64(step + count)
            state["seconds"] = np.float64(before + time.monotonic() - start)
            history.append({"step": step + count, "loss": float(loss)})
            progress(step + count, config.steps)
            if time.monotonic() - saved > SECONDS_BETWEEN:
                _write_metrics(metrics, history)
                keep(state, checkpoint)
                saved = time.monotonic()
        _write_metrics(metrics, history)
        run = LearnedRun(
            kind="dpt",
            arrays=_flat(state["params"]),
            about=PolicyRecord(
                setting=made.setting,
                horizon=made.horizon,
                family=manifest["family_config"],
                config=dataclasses.asdict(config),
                shape=dataclasses.asdict(shape),
                report={
                    "train_loss": history[-1]["loss"],
                    "seconds": float(state["seconds"]),
                    "steps": config.steps,
                },
            ),
        )
        save_policy_run(folder, run)
        checkpoint.unlink(missing_ok=True)
    return run


def _flat(tree: Any) -> dict[str, np.ndarray]:
    """A tree of arrays by their paths."""
    plain = serialization.to_state_dict(tree)
    flat = traverse_util.flatten_dict(plain, sep="/", keep_empty_nodes=True)
    return {
        name: np.asarray(array)
        for name, array in flat.items()
        if array is not traverse_util.empty_node
    }


def keep(state: dict[str, Any], path: Path) -> None:
    """Write the state of a training, or nothing."""
    with temporary_name(path) as temporary:
        save_file(_flat(state), temporary)


def restore(like: Any, path: Path) -> Any:
    """Read what `keep` wrote, in the form of `like`."""
    plain = serialization.to_state_dict(like)
    flat = traverse_util.flatten_dict(plain, sep="/", keep_empty_nodes=True)
    found = load_file(path)
    filled = {name: found.get(name, array) for name, array in flat.items()}
    return serialization.from_state_dict(
        like, traverse_util.unflatten_dict(filled, sep="/")
    )


def _read_metrics(path: Path, upto: int) -> list[dict[str, float | int]]:
    """Lines of the steps that a resumed training does not take again."""
    if not path.is_file():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["step"] <= upto]


def _write_metrics(path: Path, history: list[dict[str, float | int]]) -> None:
    with temporary_name(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in history))
