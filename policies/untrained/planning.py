"""Policies that plan: for the true model, for a mean model, or by QMDP."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from sdm.data.benchmark import Benchmark, Shown
from sdm.data.oracles import solve_hidden
from sdm.policies.posterior import count_moves, posterior, prior
from sdm.policies.prepared import Prepared, state_table, table
from sdm.policies.qmdp import mixture, observation_as_state, qmdp
from sdm.policies.registry import only, register_policy
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.solvers_jax.pomdp import PointBased
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.family import Kind, TaskFamily
from sdm.tasks.models import APOMDP, POMDP
from sdm.tasks.policy import TabularPolicy, deterministic, uniform_random


@register_policy("oracle", knows_task=True)
def oracle(bed: Benchmark) -> Prepared:
    """Act optimally in the known task."""
    if isinstance(bed.oracle, TabularPolicy):
        return table(bed, bed.oracle)
    return Prepared(bed.oracle)


@register_policy("random", knows_task=True)
def random(bed: Benchmark) -> Prepared:
    """Take every action with equal probability."""
    config = bed.config
    states = uniform_random(bed.states, config.horizon)
    shape = (*states.probabilities.shape[:2], config.family.spaces.symbols(config.kind))
    chance = jnp.full((*shape, states.probabilities.shape[-1]), 1.0)
    policy = TabularPolicy(chance / chance.shape[-1])
    return Prepared(policy, state_table(bed, states).value)


@register_policy("mean-plan")
def mean_plan(bed: Shown) -> Prepared:
    """Plan for the mean of the prior, and ignore the demonstrations."""
    family = bed.config.prior_family
    if isinstance(family, ConjugateFamily) and bed.config.kind == "mdp":
        nothing = np.zeros((bed.config.tasks, family.counts), np.int64)
        return plan_for(bed, family.model(family.posterior_mean(nothing), "mdp"))
    return plan_for(bed, prior(bed).mean_model())


@register_policy("ce")
def certainty_equivalence(bed: Shown) -> Prepared:
    """Plan for the posterior-mean model, given the demonstrations."""
    family = bed.config.prior_family
    if isinstance(family, ConjugateFamily) and bed.config.kind == "mdp":
        counts = count_moves(bed)
        return plan_for(bed, family.model(family.posterior_mean(counts), "mdp"))
    return plan_for(bed, posterior(bed).mean_model())


def plan_for(bed: Shown, believed: Any) -> Prepared:
    """Plan for a model of each task: exactly if states are observed, else by QMDP.

    QMDP's filter ignores an observed reward that no state of the model pays. This
    happens if candidates differ in their rewards and the model is their mean.
    """
    horizon = bed.config.horizon
    if bed.config.kind == "mdp":
        found = backward_induction(believed, horizon=horizon)
        return table(bed, deterministic(found.policy, believed.reward.shape[-1]))
    return Prepared(qmdp(believed, horizon=horizon, rewards=bed.config.rewards_seen))


@register_policy("qmdp", knows_task=True)
def with_states_seen_later(bed: Benchmark) -> Prepared:
    """Act by QMDP in the known task: as if states were observed after this decision."""
    config = bed.config
    if config.kind == "mdp":  # QMDP is then the oracle's policy
        return oracle(bed)
    world = bed.tasks.world
    return Prepared(qmdp(world, horizon=config.horizon, rewards=config.rewards_seen))


def _as_many_symbols(family: TaskFamily, kind: Kind) -> str | None:
    if why := only("pomdp", "apomdp")(family, kind):
        return why
    spaces = family.spaces
    if spaces.symbols(kind) == spaces.states:
        return None
    return f"{spaces.symbols(kind)} symbols cannot stand for {spaces.states} states"


@register_policy("observation-as-state", _as_many_symbols, knows_task=True)
def symbol_for_state(bed: Benchmark) -> Prepared:
    """Act optimally in the known task for the state with the symbol's number."""
    world = bed.tasks.world
    return table(bed, observation_as_state(world, horizon=bed.config.horizon))


@register_policy("nominal", only("apomdp"), knows_task=True)
def nominal(bed: Benchmark) -> Prepared:
    """Plan for the first model of the ambiguity set only."""
    world = bed.tasks.world
    assert isinstance(world, POMDP)
    config = bed.config
    _, policy = solve_hidden(
        world, PointBased(), horizon=config.horizon, rewards=config.rewards_seen
    )
    return Prepared(policy)


@register_policy("mixture", only("apomdp"), knows_task=True)
def bayesian_mixture(bed: Benchmark) -> Prepared:
    """Plan by QMDP with a uniform prior over the models of the ambiguity set."""
    assert isinstance(bed.tasks.model, APOMDP)
    whole, config = mixture(bed.tasks.model), bed.config
    return Prepared(qmdp(whole, horizon=config.horizon, rewards=config.rewards_seen))
