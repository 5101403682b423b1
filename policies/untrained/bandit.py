"""Policies of bandits, which learn from the rewards of the current episode.

Sources: `ucb` and `greedy` as in Krishnamurthy, Harris, Foster, Zhang and Slivkins
(2024), Can large language models explore in-context?; `thompson` from Thompson (1933).
"""

from sdm.data.benchmark import Shown
from sdm.policies.arm_plan import PlannedArms, arm_plan
from sdm.policies.arm_policies import (
    ArmPolicy,
    Score,
    empirical_mean,
    sampled_mean,
    upper_bound,
)
from sdm.policies.prepared import Prepared
from sdm.policies.registry import register_policy
from sdm.tasks.arms_family import ArmsFamily
from sdm.tasks.family import Kind, TaskFamily

EXPLORE = 0.1  # ε of `epsilon-greedy`


def _of_arms(family: TaskFamily, kind: Kind) -> str | None:
    """Return None for families of bandits."""
    if isinstance(family, ArmsFamily):
        return None
    return "it is for bandits, whose actions do not affect the next state"


def _of_counts(family: TaskFamily, kind: Kind) -> str | None:
    """Return None for Bernoulli bandits with bandit feedback and constant means."""
    if not isinstance(family, ArmsFamily):
        return _of_arms(family, kind)
    return family.not_counted()


def _scored(bed: Shown, score: Score, *, explore: float = 0.0) -> Prepared:
    family = bed.config.family
    assert isinstance(family, ArmsFamily)
    return Prepared(ArmPolicy(family, score, explore))


@register_policy("ucb", _of_arms)
def ucb(bed: Shown) -> Prepared:
    """Take the arm with the largest mean reward plus √(1/n)."""
    return _scored(bed, upper_bound)


@register_policy("thompson", _of_arms)
def thompson(bed: Shown) -> Prepared:
    """Sample a mean of each arm from its posterior, and take the largest."""
    return _scored(bed, sampled_mean)


@register_policy("greedy", _of_arms)
def greedy(bed: Shown) -> Prepared:
    """Take each arm once, then the one with the largest mean reward."""
    return _scored(bed, empirical_mean)


@register_policy("epsilon-greedy", _of_arms)
def epsilon_greedy(bed: Shown) -> Prepared:
    """Act like `greedy`, but with probability 0.1 take a random arm."""
    return _scored(bed, empirical_mean, explore=EXPLORE)


@register_policy("bayes-optimal", _of_counts)
def bayes_optimal(bed: Shown) -> Prepared:
    """Follow the plan with the highest mean return over the prior's tasks.

    Raises:
        ValueError: if the plan is too large.

    """
    family = bed.config.prior_family
    assert isinstance(family, ArmsFamily)
    plan = arm_plan(family, bed.config.horizon)
    return Prepared(PlannedArms(plan, family.arms))
