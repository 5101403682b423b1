"""Bayes-adaptive plans: exact by counts, and bounded over the prior's candidates."""

import dataclasses
import io
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.evaluation.gap_table import gap_table
from sdm.evaluation.tables import result_rows
from sdm.policies import count_plan
from sdm.policies.posterior import IMPOSSIBLE, posterior
from sdm.policies.registry import check_rule, prepare
from sdm.policies.untrained import bayes_adaptive
from sdm.solvers_jax.momdp import MixedObservability
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.families.garnet import GarnetFamily
from sdm.tasks.rollout import rollout, task_keys

T = 4
ENERGY = EnergyFamily(max_energy=2)


@pytest.fixture(scope="module")
def bed():
    return make_benchmark(EvaluationConfig(ENERGY, T, tasks=3, trajectories=2))


def value_by_counts(weight, p):
    """Exact value over candidates for p, by recursion over energy and counts."""
    reward = np.asarray(ENERGY.mdp(jnp.asarray(p)).reward[0])

    @cache
    def value(t, s, won, lost):
        if t == T:
            return 0.0
        now = weight * p**won * (1 - p) ** lost
        chance = float(now @ p / now.sum())
        best = -np.inf
        for a in range(3):
            to = max(s - 1, 0) if a == 2 else min(s + 1, 2)
            if to == s:
                future = value(t + 1, s, won, lost)
            else:
                future = chance * value(t + 1, to, won + 1, lost)
                future += (1 - chance) * value(t + 1, s, won, lost + 1)
            best = max(best, reward[s, a] + 0.95 * future)
        return best

    return np.mean([value(0, s, 0, 0) for s in range(3)])


@pytest.mark.slow
def test_the_candidates_plan_is_the_exact_one_within_its_bounds(bed):
    found = posterior(bed)
    wanted = np.array(
        [
            value_by_counts(w, np.asarray(found.params["p"]))
            for w in np.asarray(found.weight)
        ]
    )
    plan = bayes_adaptive.candidate_plan(bed).plan
    assert (plan.lower <= wanted).all() and (wanted <= plan.upper).all()
    # Few beliefs can be reached, and each is a point.
    np.testing.assert_allclose(plan.lower, plan.upper, rtol=1e-3)


def test_the_exact_plan_of_the_truncated_beta_is_near_that_of_the_candidates(bed):
    """141 candidates stand for an interval: both plans are nearly the same."""
    exact, bounded = (
        rollout(
            task_keys(jax.random.key(0), 3), bed.states, policy, horizon=T, episodes=40
        )
        for policy in (
            prepare("bayes-adaptive", bed).policy,
            bayes_adaptive.candidate_plan(bed),
        )
    )
    assert (np.asarray(exact.action) == np.asarray(bounded.action)).mean() > 0.95


@pytest.mark.slow
def test_rewards_and_moves_weigh_the_candidates():
    family = GarnetFamily(states=3, actions=2)
    bed = make_benchmark(EvaluationConfig(family, 3, tasks=2, trajectories=2))
    policy = bayes_adaptive.candidate_plan(bed)
    played = bed.support  # of the oracle: the policy only watches
    memory, models = None, jax.tree.map(np.asarray, policy.models)
    keys = jax.random.split(jax.random.key(0), played.reward.shape[:2])
    wanted = np.asarray(policy.weight)[:, None].repeat(2, axis=1)
    seen, done, paid = (
        np.asarray(x) for x in (played.observation, played.action, played.reward)
    )
    for t in range(3):
        before = played.reward[..., max(t - 1, 0)]
        _, memory = policy.act(memory, t, played.observation[..., t], before, keys)
        for b, e in np.ndindex(2, 2):
            x = seen[b, e, t]
            chance = [models.initial[:, x]]
            if t:
                s, a = seen[b, e, t - 1], done[b, e, t - 1]
                same = abs(models.reward[:, s, a] - paid[b, e, t - 1]) < 1e-6
                chance = [models.transition[:, s, a, x], same.astype(float)]
            for each in chance:
                wanted[b, e] *= np.maximum(each, IMPOSSIBLE)
            wanted[b, e] /= wanted[b, e].sum()
        np.testing.assert_allclose(memory.weight, wanted, rtol=ROUNDING)
        memory = memory._replace(action=played.action[..., t])


def test_bounds_are_reported_where_a_plan_need_not_be_the_best(bed, monkeypatch):
    exact = evaluate_untrained("bayes-adaptive", bed)
    assert exact.bounds is None and exact.exact_gap is not None
    monkeypatch.setattr(count_plan, "MOST_BYTES", 0)
    bounded = evaluate_untrained("bayes-adaptive", bed)
    rows = result_rows([bounded, evaluate_untrained("oracle", bed)])
    row = rows["bayes-adaptive"]
    assert row["plan_lower_mean"] <= row["plan_upper_mean"]
    assert (
        0 <= row["plan_gap_percent"] < 0.1 and "plan_gap_percent" not in rows["oracle"]
    )
    out = io.StringIO()
    Console(file=out, width=200).print(gap_table(rows))
    assert "`bayes-adaptive` plans within" in out.getvalue()


def test_a_plan_too_large_is_refused_with_the_reason(bed, monkeypatch):
    monkeypatch.setattr(count_plan, "MOST_BYTES", 0)
    monkeypatch.setattr(bayes_adaptive, "MOST_BYTES", 0)
    with pytest.raises(
        ValueError, match=r"141 candidates, 3 states.*GiB of memory and"
    ):
        prepare("bayes-adaptive", bed)


def test_the_size_of_a_count_table_is_known_before_it_is_made():
    class SixCounts(EnergyFamily):
        counts = 6

    assert count_plan.is_small(ENERGY, horizon=30, tasks=100)
    assert not count_plan.is_small(SixCounts(), horizon=30, tasks=100)


def test_hidden_states_are_refused():
    with pytest.raises(ValueError, match="it plans for observed states"):
        check_rule("bayes-adaptive", ENERGY, "pomdp")


def test_the_limits_of_a_count_table_are_those_of_its_size(monkeypatch):
    table = count_plan.count_table(ENERGY, T)
    models, plans = table.step.size, 3 * T * len(table.counts) * 3
    limits = {"MOST_BYTES": max(24 * models, plans), "MOST_WORK": models * T * 3}
    for name, needed in limits.items():
        for limit, small in ((needed, True), (needed - 1, False)):
            with monkeypatch.context() as patch:
                patch.setattr(count_plan, name, limit)
                assert count_plan.is_small(ENERGY, horizon=T, tasks=3) == small


def test_the_value_of_a_plan_is_that_of_the_states_in_which_tasks_start(bed):
    plan, tasks = count_plan.count_plan(bed), bed.states
    whole = count_plan.expected_return(plan, tasks)
    each = [
        count_plan.expected_return(
            plan,
            eqx.tree_at(
                lambda m: m.initial,
                tasks,
                jnp.zeros_like(tasks.initial).at[:, s].set(1),
            ),
        )
        for s in range(3)
    ]
    np.testing.assert_allclose(np.mean(each, axis=0), whole, rtol=ROUNDING)
    assert (np.diff(each, axis=0) > 0).all()  # energy is worth something


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_WORK"])
@pytest.mark.parametrize("most", [pytest.param(32, marks=pytest.mark.slow), 16])
def test_a_plan_has_the_most_beliefs_that_both_limits_allow(monkeypatch, limit, most):
    config = EvaluationConfig(GarnetFamily(states=3, actions=2), 2, 1, 1)
    asked = []

    def cost(moves, *, points, **_):
        over = 2 * getattr(bayes_adaptive, limit) if points > most else 1
        return (over, 1.0) if limit == "MOST_BYTES" else (1, float(over))

    def solved(model, *, horizon, method):
        asked.append((method.points, model.observes_reward))
        return MixedObservability(points=1).solve(model, horizon=horizon)

    monkeypatch.setattr(bayes_adaptive, "plan_cost", cost)
    monkeypatch.setattr(bayes_adaptive, "solve", solved)
    policy = bayes_adaptive.candidate_plan(make_benchmark(config))
    assert asked == [(most, True)] and policy.rewards
    blind = dataclasses.replace(config, observes_reward=False)
    policy = bayes_adaptive.candidate_plan(make_benchmark(blind))
    assert asked[1:] == [(most, False)] and not policy.rewards
