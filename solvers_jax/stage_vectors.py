"""α-vectors of a policy by stage, and SARSOP's policy format.

At stage t, the policy takes the action of the vector α that is largest at the belief.
A solution's class says what its vectors are:

    @stage_vectors.register
    def _(solution: MySolution, t: int) -> StageVectors: ...

SARSOP's policies are stationary, but those of a finite horizon depend on the stage:
`export_policy` writes one file per stage, and one file without a horizon. Format: APPL
(Kurniawati, Hsu, Lee 2008), `policyx.xsd` 0.1.
"""

import os
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import jax
import numpy as np
from jaxtyping import Float, Int

from sdm.solvers_jax.backward_induction import MDPSolution
from sdm.solvers_jax.belief_backup import Plans, backup
from sdm.solvers_jax.belief_model import annuities
from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.solvers_jax.pomdp import POMDPSolution
from sdm.solvers_jax.search_solution import SearchSolution
from sdm.storage.files import write_atomically
from sdm.tasks.admissible import check_no_mask
from sdm.tasks.models import check_count
from sdm.tasks.stages import at_stage


class StageVectors(NamedTuple):
    """α-vectors of one stage over hidden states, in units of reward.

    Attributes:
        vector: value of the plan in each hidden state.
        action: its first action.
        visible: value of the visible part of the state at which it applies.
        sizes: numbers of visible values and of stages.

    """

    vector: Float[np.ndarray, "N Y"]
    action: Int[np.ndarray, " N"]
    visible: Int[np.ndarray, " N"]
    sizes: tuple[int, int]


@singledispatch
def stage_vectors(solution: Any, t: int) -> StageVectors:
    """Return the α-vectors of one task's policy at stage `t`.

    The policy that takes the action of the best vector earns at least the value of that
    vector. Vectors of stage 0 are made for the initial beliefs.

    Raises:
        TypeError: if the policies of this class are not made of α-vectors.
        ValueError: if `t` is not a stage or the solution is that of a batch.

    """
    raise TypeError(
        f"α-vectors: {type(solution).__name__} has none, because its value is not the "
        "expected return of plans"
    )


def _check(solution: Any, t: int, horizon: int) -> None:
    if np.ndim(solution.value):
        raise ValueError(
            f"solution: must be that of one task, found a batch of shape "
            f"{np.shape(solution.value)}"
        )
    check_count("t", t, 0, horizon - 1)


@stage_vectors.register
def _(solution: MDPSolution, t: int) -> StageVectors:
    horizon, states = solution.policy.shape[-2:]
    _check(solution, t, horizon)
    return StageVectors(
        np.asarray(solution.state_value)[t][:, None],
        np.asarray(solution.policy)[t],
        np.arange(states),
        (states, horizon),
    )


@stage_vectors.register
def _(solution: POMDPSolution, t: int) -> StageVectors:
    horizon = solution.plans.point.shape[-3]
    _check(solution, t, horizon)
    check_no_mask(solution.model, "the export of α-vectors")
    if t:
        vector = np.asarray(solution.alpha_vectors[t - 1, :, 0])
        action = np.asarray(solution.choice[t - 1])
    else:  # the solution has plans for the stages after the first decision
        model = solution.model
        first = Plans(*jax.tree.map(lambda x: x[0], solution.plans))
        scaled, index = backup(at_stage(model, 0), model.root, first)
        left = annuities(model.discount, horizon)[-1]
        units = solution.units
        vector = np.asarray(units.scale * scaled[:, 0] + units.centre * left)
        action = np.asarray(solution.actions)[np.asarray(index)]
    return _of_beliefs(vector, action, horizon)


@stage_vectors.register
def _(solution: SearchSolution, t: int) -> StageVectors:
    stages = solution.choice.shape[-2]
    _check(solution, t, stages)
    vector = np.asarray(solution.alpha_vectors[t])
    if not np.isfinite(vector).all():
        raise ValueError(
            "admissible: the export of α-vectors does not support masks of actions, "
            "found one"
        )
    return _of_beliefs(vector, np.asarray(solution.choice[t]), stages)


def _of_beliefs(
    vector: Float[np.ndarray, "N S"], action: Int[np.ndarray, " N"], stages: int
) -> StageVectors:
    """Return the different vectors of one stage, where no state is visible."""
    rows = np.concatenate([action[:, None], vector], axis=1)
    _, kept = np.unique(rows, axis=0, return_index=True)
    kept.sort()
    zeros = np.zeros(len(kept), np.int64)
    return StageVectors(vector[kept], action[kept], zeros, (1, stages))


@stage_vectors.register
def _(solution: MOMDPSolution, t: int) -> StageVectors:
    visible, hidden = solution.first_vector.shape[-3::2]
    horizon = solution.vector.shape[-4] + 1
    _check(solution, t, horizon)
    vector, action = solution.first_vector, solution.first_choice
    if t:
        vector, action = solution.vector[t - 1], solution.choice[t - 1]
    seen = np.repeat(np.arange(visible), vector.shape[1])
    flat, taken = np.asarray(vector).reshape(-1, hidden), np.asarray(action).reshape(-1)
    rows = np.concatenate([seen[:, None], taken[:, None], flat], axis=1)
    _, kept = np.unique(rows, axis=0, return_index=True)
    kept.sort()
    return StageVectors(flat[kept], taken[kept], seen[kept], (visible, horizon))


def policy_xml(stage: StageVectors, *, model: str = "") -> str:
    """Return α-vectors in SARSOP's policy format, with exact numbers.

    Args:
        stage: the vectors.
        model: name of the model's file.

    """
    visible, _ = stage.sizes
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<Policy version="0.1" type="value" model={quoteattr(model)} '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="policyx.xsd">',
        f'<AlphaVector vectorLength="{stage.vector.shape[1]}" numObsValue="{visible}" '
        f'numVectors="{len(stage.vector)}">',
    ]
    for vector, action, seen in zip(*stage[:3], strict=True):
        numbers = " ".join(repr(float(x)) for x in vector)
        lines.append(f'<Vector action="{action}" obsValue="{seen}">{numbers}</Vector>')
    return "\n".join([*lines, "</AlphaVector>", "</Policy>", ""])


def export_policy(
    solution: Any, folder: str | os.PathLike[str], *, model: str = ""
) -> list[Path]:
    """Write the policy of each stage to `stage-000.policy`, … in SARSOP's format.

    Returns:
        The files, the first stage first.

    Raises:
        TypeError: if the policies of this class are not made of α-vectors.
        ValueError: if the solution is that of a batch.
        OSError: if a file cannot be written.

    """
    _, stages = stage_vectors(solution, 0).sizes
    written = []
    for t in range(stages):
        path = Path(folder) / f"stage-{t:03d}.policy"
        write_atomically(path, policy_xml(stage_vectors(solution, t), model=model))
        written.append(path)
    return written
