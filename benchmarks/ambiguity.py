"""How far apart are nominal and robust plans? By radius of the ambiguity sets.

Each line draws energy tasks with ambiguity sets of one radius and concentration, and
plays three plans in every model: the plan for the nominal model with its filter, the
same with the filter of the mixture, and the robust plan, relative to which the others'
losses are. It is the evidence for the default radius of `EnergyFamily`; see
`docs/results.md`.

    python benchmarks/ambiguity.py --K 5 --alpha 1
"""

import argparse

import jax
import numpy as np

from sdm.data.oracles import solve_hidden
from sdm.data.request import OracleConfig
from sdm.data.solved_tasks import method_of, sample_tasks
from sdm.tasks.ambiguity import AmbiguityError
from sdm.tasks.belief import BeliefPolicy, belief_filter, true_model
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.models import APOMDP, POMDP
from sdm.tasks.rollout import discounted_return, rollout, task_keys
from sdm.tasks.rollout_in_models import all_models, play_in_models
from sdm.tasks.streams import Stream, stream_key

# Radius in nats, and the concentration that draws models within it.
SETS = ((0.05, 50.0), (0.2, 5.0), (0.5, 2.0), (1.0, 1.0), (2.0, 0.5))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--K", type=int, default=5, help="models per set")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=400, help="per model")
    parser.add_argument("--horizon", type=int, default=10)
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print(
        "| radius | concentration | divergence | worst model | nominal model |", end=""
    )
    print(" worst model, mixture filter |")
    print("|---:|---:|---:|---:|---:|---:|")
    for radius, concentration in SETS:
        family = EnergyFamily(
            models=asked.K,
            alpha=asked.alpha,
            radius=radius,
            concentration=concentration,
        )
        print(_line(family, asked), flush=True)


def _line(family: EnergyFamily, asked: argparse.Namespace) -> str:
    """Return the line of one radius."""
    config = OracleConfig(family, asked.horizon, asked.tasks, 0, kind="apomdp")
    try:
        tasks = sample_tasks(0, config=config, size=asked.tasks, split="test")
    except AmbiguityError as error:
        return f"| {family.radius:g} | {family.concentration:g} | {error} | | | |"
    model = tasks.model
    assert isinstance(model, APOMDP)
    _, robust = solve_hidden(
        model,
        method_of(config, APOMDP),
        horizon=asked.horizon,
        believe="mixture",
    )
    known, _ = solve_hidden(
        true_model(model), method_of(config, POMDP), horizon=asked.horizon
    )
    keys = task_keys(stream_key(0, Stream.TEST_EPISODES), asked.tasks)

    def returns(policy: BeliefPolicy) -> np.ndarray:
        played = play_in_models(
            rollout,
            keys,
            all_models(model),
            policy,
            horizon=asked.horizon,
            episodes=asked.episodes,
        )
        return np.asarray(discounted_return(played.reward, model.discount)).mean(-1)

    best = returns(robust)
    nominal, mixed = (
        returns(BeliefPolicy(known, belief_filter(model, believe=believe)))
        for believe in (0, "mixture")
    )
    losses = (
        (1 - nominal.min(-1) / best.min(-1)),
        (1 - nominal[:, 0] / best[:, 0]),
        (1 - mixed.min(-1) / best.min(-1)),
    )
    shown = " | ".join(f"{100 * loss.mean():.1f} %" for loss in losses)
    far = float(np.asarray(tasks.divergence)[:, 1:].mean())
    return f"| {family.radius:g} | {family.concentration:g} | {far:.2f} | {shown} |"


if __name__ == "__main__":
    main()
