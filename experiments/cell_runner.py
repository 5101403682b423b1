"""Run one cell: train its policy if it is not trained yet, and evaluate it."""

import time
from functools import partial
from pathlib import Path

from sdm.experiments.artifacts import Artifacts, benchmark_of
from sdm.experiments.cell_configs import evaluation_of
from sdm.experiments.origin import by_language_model, origin_of
from sdm.experiments.rows import VERSION, Row
from sdm.experiments.spec import Cell, key_of
from sdm.experiments.study import Step, studies
from sdm.policies.spec import parse_policy
from sdm.storage.provenance import provenance


def run_cell(cell: Cell, work: Path, step: Step) -> Row:
    """Create the inputs of a cell, evaluate its policy, and return the row.

    `seconds` include the training, even if an earlier run did it, and the evaluation.

    Raises:
        ValueError, RuntimeError, OSError, FloatingPointError: if the cell fails.

    """
    names = ("experiment", "profile", "key", "policy")
    about = {name: getattr(cell, name) for name in names}
    found = (_study if cell.study else _evaluate)(cell, work, step)
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = {"version": VERSION, **about, **cell.spec, **found}
    return {**made, "finished": finished}


def _evaluate(cell: Cell, work: Path, step: Step) -> Row:
    """Train a policy if it is not trained yet, and evaluate it."""
    from sdm.evaluation.evaluate import check_policy, evaluate
    from sdm.evaluation.tables import result_row
    from sdm.llm.base_names import check_base_name

    test = evaluation_of(cell)
    if "base" in cell.learn:
        check_base_name(cell.learn["base"])  # fail before generating any data
    policy = origin_of(cell).policy(cell, Artifacts(work, step))
    check_policy(policy.name, test, policy.options)
    # Do not reuse episodes of another training of the same policy.
    played = f"played-{cell.key}-{key_of({'training': policy.training})}"
    (result,) = evaluate(
        [policy.name],
        benchmark_of(test),
        policy.options,
        kept=work / played if by_language_model(cell) else None,
        progress=partial(_acting, step),
    )
    trained = 0.0 if policy.training is None else policy.training["seconds"]
    return {
        "result": result_row(result, per_task=True),
        "training": policy.training,
        "seconds": result.seconds + trained,
        **provenance(by_torch=parse_policy(policy.name).needs_torch),
    }


def _acting(step: Step, _: str, done: int, tasks: int) -> None:
    step("acting", done, tasks)


def _study(cell: Cell, work: Path, step: Step) -> Row:
    """Run a cell of a study."""
    study, start = studies()[cell.learner], time.monotonic()
    found = study.run(cell, study_folder(work, cell), step)
    seconds = time.monotonic() - start
    made = provenance(by_torch=study.needs_torch(cell.learn))
    return {**found, "training": None, "seconds": seconds, **made}


def study_folder(work: Path, cell: Cell) -> Path:
    """Return the folder in which an unfinished cell of a study stores its parts."""
    return work / f"study-{cell.key}"
