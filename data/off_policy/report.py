"""The report of an off-policy evaluation, of one policy or of two."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from sdm.data.logs import Logs
from sdm.data.off_policy.bootstrap import LEAST
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.confounding import (
    Confounding,
    behavior_bound,
    check_factors,
    turning_point,
)
from sdm.data.off_policy.evaluate import (
    FEW,
    Progress,
    Result,
    chosen_estimators,
    difference,
    evaluate_sample,
    warnings_about,
    warnings_of,
    warnings_of_pairs,
)
from sdm.data.off_policy.logged_policy import LoggedPolicy
from sdm.data.off_policy.sample import Sample, sample_of


def off_policy_report(
    logs: Logs,
    policies: Mapping[str, LoggedPolicy],
    config: OffPolicyConfig,
    *,
    estimators: Sequence[str] = (),
    factors: Sequence[float] = (),
    seed: int = 0,
    progress: Progress = lambda step, done, total: None,
) -> dict[str, Any]:
    """Evaluate one or two policies on logs, and return a report of JSON values.

    Args:
        logs: episodes that the behavior policy generated.
        policies: the policy and, to compare it with, another one, by name.
        config: configuration of the evaluation.
        estimators: names of estimators; none for all.
        factors: values of Λ for which bounds under confounding are computed.
        seed: seed of the bootstrap.
        progress: called with the name of a step, the work done and the total work.

    Raises:
        ValueError: if a policy does not fit the logs, or an option is invalid.

    """
    chosen = chosen_estimators(estimators)
    check_factors(factors)
    samples = {n: sample_of(logs, each, config) for n, each in policies.items()}
    bounds = {n: Confounding(s, config) for n, s in samples.items() if factors}
    rows, results = dict[str, dict[str, Any]](), dict[str, dict[str, Result]]()
    for name, sample in samples.items():
        found = evaluate_sample(
            sample,
            config,
            chosen,
            seed=seed,
            progress=partial(progress, name),
        )
        results[name] = found
        rows[name] = {
            "estimators": {n: each.row() for n, each in found.items()},
            "refused": {n: why for n, e in chosen.items() if (why := e.refuse(sample))},
            "warnings": [*warnings_of(found, logs), *warnings_of_pairs(sample)],
        }
    for name, each in bounds.items():
        rows[name] |= _confounding(each, name, factors, seed, progress)
    first = next(iter(policies))
    return {
        "episodes": logs.episodes,
        "tasks": len(np.unique(logs.task)),
        "decisions": int(logs.length.sum()),
        "horizon": logs.horizon,
        "discount": config.discount,
        "behavior_policy": "estimated" if logs.probability is None else "logged",
        "behavior_return": _mean_return(samples[first]),
        "returns": [samples[first].ranges.low, samples[first].ranges.high],
        "policy": first,
        **rows[first],
        "log_warnings": warnings_about(logs, pool_tasks=config.pool_tasks),
        **_against(list(policies), rows, results, bounds),
    }


def _mean_return(sample: Sample) -> float:
    return float((sample.logs.reward @ sample.powers).mean())


def _confounding(
    bounds: Confounding,
    name: str,
    factors: Sequence[float],
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Return the bounds of a policy for each Λ, and what would turn its ranking."""
    step, found = f"confounding of {name}", []
    for done, factor in enumerate(factors):
        progress(step, done, len(factors))
        found.append(bounds.row(factor, seed=seed))
    progress(step, len(factors), len(factors))
    behavior = behavior_bound(bounds.sample)
    said = []
    if not bounds.identified:
        said.append(
            f"confounding: {bounds.stage.effective:.1f} effective episodes for each "
            f"observation and action of stage {bounds.stage.stage}: too few for an "
            "interval, which is the range of possible returns"
        )
    elif bounds.stage.effective < FEW:
        said.append(
            f"confounding: {bounds.stage.effective:.1f} effective episodes for each "
            f"observation and action of stage {bounds.stage.stage}: the bounds are "
            "biased towards the behavior policy, and their interval may be too narrow"
        )
    least = bounds.stage.least
    if bounds.identified and least < LEAST:
        said.append(
            f"confounding: {least:.1f} effective episodes for an observation and "
            f"action of stage {bounds.stage.stage} that the policy takes: what these "
            "few did not have counts as impossible"
        )
    return {
        "confounding": {
            "stage": bounds.stage.stage,
            "effective_per_group": bounds.stage.effective,
            "effective_least": least,
            "bounds": found,
            "identified": bounds.identified,
            "behavior_turns_at": turning_point(bounds.bound, behavior)
            if bounds.identified
            else None,
            "warnings": said,
        }
    }


def _against(
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Result]],
    bounds: Mapping[str, Confounding],
) -> dict[str, Any]:
    """Return the entries about the second policy, if there is one."""
    if len(names) == 1:
        return {}
    first, second = names
    shared = [n for n in results[first] if n in results[second]]
    found: dict[str, Any] = {
        "against": {"policy": second, **rows[second]},
        "difference": {
            n: difference(results[first][n], results[second][n]) for n in shared
        },
    }
    if bounds:
        found["ranking_turns_at"] = None
        if all(each.identified for each in bounds.values()):
            both = (bounds[first].bound, bounds[second].bound)
            found["ranking_turns_at"] = turning_point(*both)
    return found
