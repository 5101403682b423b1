"""Learned policies other than language models, by name: `dpt:RUN` and `cql:RUN`."""

from pathlib import Path

import jax.numpy as jnp
from flax import traverse_util

from sdm.data.benchmark import Benchmark, EvaluationConfig
from sdm.policies.by_name import Baseline, table_baseline
from sdm.policies.dpt import (
    DPTShape,
    HistoryPolicy,
    one_after_another,
    table_policy,
    transitions_of,
)
from sdm.policies.policy_runs import LearnedRun, load_policy_run
from sdm.storage.files import StorageError
from sdm.tasks.families import DarkroomFamily
from sdm.tasks.policy import deterministic

KINDS = ("dpt", "cql")


def is_learned(name: str) -> bool:
    """Whether a policy's name is one of these."""
    kind, colon, folder = name.partition(":")
    return kind in KINDS and bool(colon and folder)


def run_folder(name: str) -> Path:
    """The folder that a policy's name tells."""
    return Path(name.partition(":")[2])


def check_learned(name: str, config: EvaluationConfig) -> LearnedRun:
    """Load the policy of a folder, if it fits a test.

    Raises:
        StorageError: if the folder holds no such policy, or one for other tasks.

    """
    kind = name.partition(":")[0]
    run = load_policy_run(run_folder(name), kind)
    about = run.about
    size = "size" if config.setting == "darkroom" else "max_energy"
    trained = (about.setting, about.horizon, about.family.get(size))
    played = (config.setting, config.horizon, getattr(config.family, size))
    if trained != played:
        words = (f"{s} tasks, T = {t}, {size} = {n}" for s, t, n in (trained, played))
        raise StorageError(
            f"`{name}` was trained for {next(words)}: the test is {next(words)}",
            "test it on such tasks, or train another",
        )
    if isinstance(config.family, DarkroomFamily):
        rooms = DarkroomFamily(**about.family)
        if rooms.pays != config.family.pays:
            raise StorageError(
                f"`{name}` was trained for goals that pay by {rooms.pays}: those of "
                f"the test pay by {config.family.pays}",
                f"pass `--pays {rooms.pays}`",
            )
        if met := config.family.goals_met(rooms):
            raise StorageError(
                f"`{name}` was trained on {met} of the goals that the test holds out",
                f"pass `--split {rooms.split}`, with which it was trained",
            )
    if kind == "dpt":
        most = int(about.config["support"])
        # Where states are hidden, what follows the demonstrations has its place.
        hidden = config.setting in ("pomdp", "apomdp")
        if not (most if hidden else 1) <= config.support <= most:
            raise StorageError(
                f"`{name}` reads {'' if hidden else '1 to '}{most} demonstrations: "
                f"the test shows {config.support}",
                f"pass `--support {most}`",
            )
    return run


def learned(name: str, bed: Benchmark) -> Baseline:
    """The policy of a folder, for the tasks of a test.

    Raises:
        StorageError: if the folder holds no such policy, or one for other tasks.

    """
    run = check_learned(name, bed.config)
    if run.kind == "cql":
        best = jnp.asarray(run.arrays["q"].argmax(-1), jnp.int32)
        table = jnp.broadcast_to(best, (bed.config.tasks, *best.shape))
        return table_baseline(bed, deterministic(table, bed.config.family.actions))
    shape = DPTShape(**run.about.shape)
    params = traverse_util.unflatten_dict(dict(run.arrays), sep="/")
    horizon = bed.config.horizon
    if bed.config.setting in ("mdp", "darkroom"):
        return table_baseline(
            bed, table_policy(shape, params, bed.support, horizon=horizon)
        )
    context = one_after_another(transitions_of(bed.support))
    return Baseline(HistoryPolicy(params, context, shape, horizon))
