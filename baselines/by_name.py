"""Policies without learning, by the names that the command line knows.

Each is made for the tasks of a test, and comes with its exact expected return where
that can be computed; docs/policies.md says what each knows.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from sdm.baselines import bayes_adaptive, goals, posterior_sampling
from sdm.baselines.bayes_imitation import bayes_imitation
from sdm.baselines.behaviour_cloning import behaviour_cloning
from sdm.baselines.certainty_equivalence import estimate_p, plan_for
from sdm.baselines.posterior import posterior
from sdm.baselines.qmdp import mixture, observation_as_state, qmdp
from sdm.llm.test_bed import TestBed
from sdm.solvers_jax.belief import BeliefPolicy, belief_filter
from sdm.solvers_jax.families import DarkroomFamily, EnergyFamily
from sdm.solvers_jax.models import APOMDP, MDP, POMDP
from sdm.solvers_jax.oracle_tasks import sample_tasks, solve_sampled
from sdm.solvers_jax.policies import (
    Policy,
    TabularPolicy,
    constant_action,
    uniform_random,
)
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.solvers_jax.pomdp import solve_pomdp
from sdm.solvers_jax.rollout import rollout, task_keys
from sdm.solvers_jax.streams import Stream, stream_key

ENERGY = ("mdp", "pomdp", "apomdp")
EVERYWHERE = (*ENERGY, "darkroom")
HIDDEN = ("pomdp", "apomdp")
OTHER_TASKS = 20  # whose episodes behaviour cloning falls back on
OTHER_EPISODES = 15


@dataclass(frozen=True)
class Baseline:
    """A policy for the tasks of a test.

    Attributes:
        policy: what plays.
        value: its expected return in each task, exactly; None where it is not known.

    """

    policy: Policy
    value: Float[Array, " B"] | None = None


def table_baseline(bed: TestBed, policy: TabularPolicy) -> Baseline:
    """A policy that is a table over what is seen, and its exact value.

    Symbols of energy tasks depend on the state alone, so in sight of symbols a table
    acts in each state as its mixture over the symbols that the state shows.
    """
    chances = policy.probabilities
    world = bed.tasks.world
    if isinstance(world, POMDP):
        assert world.initial_observation is not None
        chances = jnp.einsum("bso,btoa->btsa", world.initial_observation, chances)
    return Baseline(policy, evaluate_policy(bed.states, chances))


def _oracle(bed: TestBed) -> Baseline:
    if isinstance(bed.oracle, TabularPolicy):
        return table_baseline(bed, bed.oracle)
    return Baseline(bed.oracle)


def _random(bed: TestBed) -> Baseline:
    return table_baseline(bed, uniform_random(bed.states, bed.config.horizon))


def _always_work(bed: TestBed) -> Baseline:
    work = EnergyFamily.work
    return table_baseline(bed, constant_action(bed.states, bed.config.horizon, work))


def _plan(bed: TestBed, p: Float[Array, " B"]) -> Baseline:
    """Plan as if `p` were the truth; where states are hidden, by QMDP."""
    family, horizon = prior(bed), bed.config.horizon
    if bed.config.setting == "mdp":
        return table_baseline(bed, plan_for(family, p, horizon=horizon))
    return Baseline(qmdp(family.pomdp(p), horizon=horizon))


def _mean_plan(bed: TestBed) -> Baseline:
    if isinstance(bed.config.family, DarkroomFamily):
        return _goal_plan(bed, goals.prior(bed.config.family, bed.config.tasks))
    family = prior(bed)
    mean = (family.p_min + family.p_max) / 2
    return _plan(bed, jnp.full(bed.config.tasks, mean, bed.tasks.p.dtype))


def _goal_plan(bed: TestBed, chance: Float[Array, "B S"]) -> Baseline:
    """Plan for what a Darkroom task pays on average."""
    family = bed.config.family
    assert isinstance(family, DarkroomFamily)
    return table_baseline(
        bed, goals.plan_for_mean(family, chance, horizon=bed.config.horizon)
    )


def _certainty_equivalence(bed: TestBed) -> Baseline:
    if isinstance(bed.config.family, DarkroomFamily):
        return _goal_plan(bed, goals.posterior(bed.config.family, bed.support))
    if bed.config.setting == "mdp":
        mean = jnp.asarray(estimate_p(prior(bed), bed.support), bed.tasks.p.dtype)
    else:
        mean = posterior(prior(bed), bed.support, hidden=True).mean
    return _plan(bed, mean)


def _posterior_sampling(bed: TestBed) -> Baseline:
    family = bed.config.family
    if isinstance(family, DarkroomFamily):
        drawn = goals.sample_goals(
            family, goals.posterior(family, bed.support), horizon=bed.config.horizon
        )
        return Baseline(drawn, posterior_sampling.expected_return(drawn, bed.states))
    hidden = bed.config.setting != "mdp"
    found = posterior(prior(bed), bed.support, hidden=hidden)
    policy = posterior_sampling.posterior_sampling(
        prior(bed), found, horizon=bed.config.horizon, hidden=hidden
    )
    if hidden:
        return Baseline(policy)
    return Baseline(policy, posterior_sampling.expected_return(policy, bed.states))


def _bayes_adaptive(bed: TestBed) -> Baseline:
    policy = bayes_adaptive.bayes_adaptive(
        prior(bed), bed.support, horizon=bed.config.horizon
    )
    family = bed.config.family
    assert isinstance(family, EnergyFamily)
    value = bayes_adaptive.expected_return(policy, family, bed.tasks.p)
    return Baseline(policy, value)


def _bayes_imitation(bed: TestBed) -> Baseline:
    by_oracle = bed.config.demonstrations == "optimal"
    table = bayes_imitation(
        prior(bed), bed.support, horizon=bed.config.horizon, by_oracle=by_oracle
    )
    return table_baseline(bed, table)


def _behaviour_cloning(bed: TestBed) -> Baseline:
    """Falls back on episodes of training tasks, which the test never meets."""
    family = bed.config.training_family or bed.config.family
    config = dataclasses.replace(bed.config.oracle, family=family)
    number = OTHER_TASKS
    if isinstance(family, DarkroomFamily):
        number = len(family.goals(held_out=False))
    others = sample_tasks(0, config=config, size=number)
    _, oracle = solve_sampled(others.model, config)
    shown = rollout(
        task_keys(stream_key(config.seed, Stream.TRAIN_EPISODES), number),
        others.world,
        oracle,
        horizon=config.horizon,
        episodes=OTHER_EPISODES,
    )
    cloned = behaviour_cloning(
        bed.support, shown, symbols=family.states, actions=family.actions
    )
    return table_baseline(bed, cloned)


def _qmdp(bed: TestBed) -> Baseline:
    world = bed.tasks.world
    if isinstance(world, MDP):  # with its states in sight, QMDP is the optimal policy
        return _oracle(bed)
    return Baseline(qmdp(world, horizon=bed.config.horizon))


def _observation_as_state(bed: TestBed) -> Baseline:
    world = bed.tasks.world
    assert isinstance(world, POMDP)
    return table_baseline(bed, observation_as_state(world, horizon=bed.config.horizon))


def _nominal(bed: TestBed) -> Baseline:
    world = bed.tasks.world
    assert isinstance(world, POMDP)
    solution = solve_pomdp(world, horizon=bed.config.horizon)
    return Baseline(BeliefPolicy(solution, belief_filter(world)))


def _mixture(bed: TestBed) -> Baseline:
    assert isinstance(bed.tasks.model, APOMDP)
    return Baseline(qmdp(mixture(bed.tasks.model), horizon=bed.config.horizon))


# How each is made, and the settings that it fits.
MAKERS: dict[str, tuple[Callable[[TestBed], Baseline], tuple[str, ...]]] = {
    "oracle": (_oracle, EVERYWHERE),
    "random": (_random, EVERYWHERE),
    "always-work": (_always_work, ENERGY),
    "mean-plan": (_mean_plan, EVERYWHERE),
    "bc": (_behaviour_cloning, EVERYWHERE),
    "ce": (_certainty_equivalence, EVERYWHERE),
    "psrl": (_posterior_sampling, EVERYWHERE),
    "bayes-adaptive": (_bayes_adaptive, ("mdp",)),
    "bayes-imitation": (_bayes_imitation, ("mdp",)),
    "qmdp": (_qmdp, EVERYWHERE),
    "observation-as-state": (_observation_as_state, HIDDEN),
    "nominal": (_nominal, ("apomdp",)),
    "mixture": (_mixture, ("apomdp",)),
}


def names(setting: str) -> tuple[str, ...]:
    """The policies that fit a setting."""
    return tuple(name for name, (_, fits) in MAKERS.items() if setting in fits)


def check_baseline(name: str, setting: str) -> None:
    """Raise `ValueError` unless this policy without learning fits the setting."""
    if name not in names(setting):
        raise ValueError(
            f"`{name}` does not fit {setting} tasks: those that do are "
            f"{', '.join(names(setting))}"
        )


def baseline(name: str, bed: TestBed) -> Baseline:
    """One of the setting's policies without learning for the tasks of a test.

    Raises:
        ValueError: if it does not fit the setting.

    """
    check_baseline(name, bed.config.setting)
    return MAKERS[name][0](bed)


def prior(bed: TestBed) -> EnergyFamily:
    """Where the policies believe energy tasks to come from."""
    family = bed.config.training_family or bed.config.family
    assert isinstance(family, EnergyFamily)
    return family
