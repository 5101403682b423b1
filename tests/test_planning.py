"""Plans from logs against enumeration, plain loops, limits and simulated truth."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from expert_worlds import T, frequencies, world
from scipy import optimize, stats
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.logs import NOTHING, Logs, LogsError
from sdm.data.logs.write import write_logs
from sdm.data.planning import cross_fitted_bounds, evidence_of, fold_value
from sdm.data.planning import pooling as pooling_module
from sdm.data.planning.fold_value import value_in_model
from sdm.data.planning.mean_bound import lower_mean
from sdm.data.planning.planner import parse_planner, planners, register_planner
from sdm.data.planning.planners.posterior import Posterior
from sdm.data.planning.planners.robust import smallest_means
from sdm.data.planning.pooling import concentration, pooling_weights
from sdm.experiments.logged_world import logged_world
from sdm.experiments.spec import ExperimentError
from sdm.solvers_jax import solve
from sdm.solvers_jax.inner_problems import l1_rows
from sdm.storage.memory import MemoryLimitError
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.families.sepsis import SepsisFamily

ROUNDING = 1e-12  # of sums of at most a few hundred terms of size 1, in doubles


@pytest.fixture(scope="module")
def logs():
    return world(1).logs(40, 0)


def test_counts_are_those_of_the_decisions(logs):
    found = evidence_of(logs)
    assert found.visits.sum() == logs.length.sum()
    for state, action in itertools.product(range(6), range(2)):
        here = (logs.observation[:, :-1] == state) & (logs.action == action)
        assert found.visits[state, action] == here.sum()
        row = found.count[[state * 2 + action]].toarray()[0]
        for then in range(6):
            arrives = here & (logs.observation[:, 1:] == then)
            arrives[logs.done, logs.length[logs.done] - 1] = False
            assert row[then] == arrives.sum()
    # A final 1 is an outcome, which pays; a final 0 is another one.
    assert found.space.outcomes.tolist() == [0.0, 1.0]
    assert found.reward.max() == 0
    assert found.after(np.zeros(6)).tolist() == [0.0] * 6 + [0.0, 1.0, 0.0]


def test_logs_that_do_not_fit_are_refused(logs, monkeypatch):
    needed = logs.action.size * 200
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: needed - 1)
    with pytest.raises(MemoryLimitError, match="a plan from 40 logged episodes needs"):
        evidence_of(logs)
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: needed)
    evidence_of(logs)


def test_the_naive_plan_is_the_best_for_relative_frequencies(logs):
    few = logs.select(np.arange(logs.episodes) < 12)
    for part in (logs, few):  # the second with unvisited pairs
        made = planners()["naive"]().plan(evidence_of(part), horizon=T, seed=0)
        assert made.value == pytest.approx(frequencies(part, T), abs=ROUNDING)
        own = frequencies(part, T, policy=made.probabilities)
        assert own == pytest.approx(made.value, abs=ROUNDING)


def test_other_plans_claim_the_value_of_their_policy_in_the_same_model(logs):
    found = evidence_of(logs)
    for text in ("behavior", "support min_visits=5", "baseline min_visits=8"):
        made = parse_planner(text).plan(found, horizon=T, seed=0)
        own = frequencies(logs, T, policy=made.probabilities)
        assert made.value == pytest.approx(own, abs=ROUNDING), text


def test_support_never_takes_rare_actions_if_there_are_others(logs):
    found = evidence_of(logs)
    for least, share in ((6, 0.0), (1, 0.4), (10**6, 0.0)):
        planner = planners()["support"](min_visits=least, min_share=share)
        taken = planner.plan(found, horizon=T, seed=0).probabilities > 0
        enough = (found.visits >= least) & (found.behavior >= share)
        rare = taken[:, :4] & ~enough[:4]
        for state in np.flatnonzero(rare.any((0, 2))):
            assert not enough[state].any()
            assert (taken[:, state].argmax(-1) == found.visits[state].argmax()).all()


def test_the_baseline_keeps_rare_actions_and_improves_the_rest(logs):
    found = evidence_of(logs)
    rare = found.visits < 8
    made = planners()["baseline"](min_visits=8).plan(found, horizon=T, seed=0)
    kept = np.broadcast_to(np.where(rare, found.behavior, 0), (T, 6, 2))
    assert rare[:4].any() and (~rare[:4]).any()
    np.testing.assert_allclose(made.probabilities[:, rare], kept[:, rare])
    own = planners()["behavior"]().plan(found, horizon=T, seed=0)
    naive = planners()["naive"]().plan(found, horizon=T, seed=0)
    assert own.value < made.value < naive.value
    for least, same in ((1, naive), (10**6, own)):
        other = planners()["baseline"](min_visits=least).plan(found, horizon=T, seed=0)
        assert other.value == pytest.approx(same.value, abs=ROUNDING)


def test_the_smallest_mean_in_a_ball_is_that_of_a_linear_program_and_of_l1_rows():
    logs = world(3).logs(30, 1)
    rows = evidence_of(logs).rows
    generator = np.random.default_rng(0)
    value, radius = generator.normal(size=9), generator.uniform(0, 2, rows.shape[0])
    found = smallest_means(rows, radius, value)
    dense = rows.toarray()
    seen = dense.sum(1) > 0
    arrays = (np.broadcast_to(value, dense.shape), dense, radius)
    other = np.asarray(l1_rows(*map(jnp.asarray, arrays)))
    np.testing.assert_allclose(found[seen], (other @ value)[seen], atol=ROUNDING)
    for row in np.flatnonzero(seen)[:4]:  # p, and the excess of p over the row
        size = len(value)
        eye = np.eye(size)
        limits = np.block([[eye, -eye], [np.zeros((1, size)), np.ones((1, size))]])
        program = optimize.linprog(
            np.append(value, np.zeros(size)),
            A_ub=limits,
            b_ub=np.append(dense[row], radius[row] / 2),
            A_eq=[[1.0] * size + [0.0] * size],
            b_eq=[1.0],
        )
        # The tolerance of the linear program.
        assert found[row] == pytest.approx(program.fun, abs=1e-7)


def test_robust_claims_hold_and_reach_from_the_naive_to_the_worst(logs):
    found = evidence_of(logs)
    naive = planners()["naive"]().plan(found, horizon=T, seed=0)
    make = planners()["robust"]
    claims = [
        make(scale=x).plan(found, horizon=T, seed=0).value
        for x in (1e-12, 0.3, 1.0, 100.0)
    ]
    assert claims[0] == pytest.approx(naive.value, abs=1e-9)  # at most T radii
    assert claims[0] > claims[1] > claims[2] > claims[3] == 0
    small = world(5, states=2)
    plan = make(confidence=0.9).plan(
        evidence_of(small.logs(20000, 0)), horizon=T, seed=0
    )
    assert 0 < plan.value < small.value(plan.probabilities)


def test_nature_between_the_worst_and_the_best_of_the_posterior(logs):
    found = evidence_of(logs)
    plan = {
        alpha: Posterior(models=4, alpha=alpha).plan(found, horizon=T, seed=3).value
        for alpha in (0.0, 0.5, 1.0)
    }
    assert plan[0.0] > plan[0.5] > plan[1.0]
    single = [
        Posterior(models=1, alpha=a).plan(found, horizon=T, seed=3).value
        for a in (0.0, 1.0)
    ]
    assert single[0] == single[1]
    pairs = np.flatnonzero(found.visits)
    models = 4000
    drawn = Posterior(models=models)._models(found, pairs, np.random.default_rng(0))
    drawn = drawn.toarray().reshape(models, len(pairs), -1)
    np.testing.assert_allclose(drawn.sum(-1), 1)
    c = concentration(found)
    weight = c * found.pooled_rows.toarray()[pairs // 2] + found.count.toarray()[pairs]
    mean = weight / weight.sum(-1, keepdims=True)
    error = np.sqrt(mean * (1 - mean) / (weight.sum(-1, keepdims=True) + 1) / models)
    # Five standard errors: 108 comparisons fail by chance in fewer than 1 of 10^4 runs.
    assert (np.abs(drawn.mean(0) - mean) <= 5 * error + ROUNDING).all()


def test_likelihoods_of_counts_are_those_of_scipy(logs):
    found = evidence_of(logs)
    pair = np.repeat(np.arange(12), np.diff(found.count.indptr))
    base = pooling_module._bases(found, pair)
    for c in (0.7, 30.0):
        ours = pooling_module._log_likelihood(found, pair, base, c)
        for row in np.flatnonzero(found.visits):
            mine = pair == row
            count = found.count.data[mine]
            # The rest of the base is for next states without counts.
            parameters = c * np.append(base[mine], max(1 - base[mine].sum(), 1e-300))
            law = stats.dirichlet_multinomial(parameters, int(count.sum()))
            theirs = law.logpmf(np.append(count, 0).astype(int))
            orders = (
                stats.multinomial.logpmf(count, int(count.sum()), count / count.sum())
                - (count * np.log(count / count.sum())).sum()
            )
            assert ours[row] == pytest.approx(theirs - orders, rel=1e-9)


def test_equal_actions_are_pooled_and_different_ones_are_not():
    """The weight of a row's own frequencies follows how much actions differ."""
    found = {}
    for alike in (0.0, 1.0):
        drawn = world(7, states=20, actions=3, alike=alike)
        found[alike] = pooling_weights(evidence_of(drawn.logs(3000, 0)))
    weight, same = (found[x][:20][found[x][:20] > 0] for x in (0.0, 1.0))
    assert ((0 <= weight) & (weight < 1)).all()
    # Errors of the other actions' rows, with 120 visits each, count as differences.
    assert np.median(weight) > 0.8 and np.median(same) < 0.4


def test_pooling_hardly_claims_too_much():
    """With few episodes, in the mean of 20 data sets."""
    drawn, rows = world(0, states=8, actions=4, alike=0.7, horizon=5), []
    for seed in range(20):
        found = evidence_of(drawn.logs(100, seed))
        made = [
            planners()[x]().plan(found, horizon=5, seed=0) for x in ("naive", "pooled")
        ]
        rows.append([each.value - drawn.value(each.probabilities) for each in made])
    naive, pooled = np.mean(rows, 0)
    error = stats.sem(np.array(rows)[:, 1])
    assert abs(pooled) < 4 * error  # four standard errors
    assert naive > 8 * error


def test_the_value_in_a_fold_is_that_of_its_frequencies(monkeypatch):
    monkeypatch.setattr(fold_value, "FEW", 1e-12)
    logs = world(1).logs(200, 0)
    found = evidence_of(logs)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), (T, 6))
    made = value_in_model(found, policy)
    assert (found.visits[:4] > 0).all()
    want = frequencies(logs, T, policy=policy)
    assert made.value == pytest.approx(want, abs=1e-10)  # 100 times FEW


def test_the_error_of_a_fold_is_that_of_the_jackknife():
    logs = world(2).logs(150, 0)
    policy = np.random.default_rng(1).dirichlet(np.ones(2), (T, 6))
    made = value_in_model(evidence_of(logs), policy)
    space, every = evidence_of(logs).space, np.arange(logs.episodes)
    left = np.array(
        [
            value_in_model(
                evidence_of(logs.select(every != n), space=space), policy
            ).value
            for n in every
        ]
    )
    jackknife = np.sqrt((len(every) - 1) * left.var())
    # Both are consistent; their difference is of the order 1/N, with 36 rows here.
    assert made.error == pytest.approx(jackknife, rel=0.1)


def test_the_error_has_the_spread_of_first_observations():
    """Everything after the first observation is certain: 4 of 10 episodes pay 1."""
    first = np.arange(10) % 5 > 2
    logs = Logs(
        observation=np.stack([first, np.full(10, NOTHING)], 1),
        action=np.zeros((10, 1), int),
        reward=first[:, None].astype(float),
        done=np.ones(10, bool),
        task=np.zeros(10, int),
        probability=None,
        observations=("x", "y"),
        actions=("a",),
        tasks=("0",),
    )
    made = value_in_model(evidence_of(logs), np.ones((1, 2, 1)))
    assert made.value == pytest.approx(0.4)
    assert made.error == pytest.approx(np.sqrt(0.4 * 0.6 / 10))


@pytest.mark.slow
def test_lower_bounds_hold_at_the_stated_rate_for_a_fixed_policy():
    """The bound of a planner that ignores the logs, over 200 data sets."""
    drawn = world(11, states=3)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), (T, 5))

    class Fixed:
        name = "fixed"

        def plan(self, evidence, *, horizon, seed):
            from sdm.data.planning import LogPlan

            return LogPlan(policy, 0.0)

    true, held, hidden = drawn.value(policy), [], []
    for seed in range(200):
        bounds = cross_fitted_bounds(
            drawn.logs(300, seed), Fixed(), horizon=T, folds=2, confidence=0.9
        )
        held.append(bounds.lower <= true)
        hidden.append(bounds.lower_confounded <= true)
    # Binomial: 165 of 200 or fewer have the probability 0.001 at 90 %, 193 or more
    # 0.001 at 92 %, which leaves room for the bias of the folds' models.
    assert 165 < sum(held) < 194
    assert sum(hidden) > 165


def test_the_bound_for_hidden_states_holds_where_the_other_does_not():
    """Two states look alike, and the expert tells them apart."""
    drawn = world(4, states=4, hidden=2, horizon=2)
    drawn.expert[0:4] = [[0.95, 0.05], [0.05, 0.95]] * 2
    best = solve(drawn.model, horizon=2)
    good = np.asarray(best.policy)[0, :4]
    drawn.expert[np.arange(4), good], drawn.expert[np.arange(4), 1 - good] = 0.95, 0.05
    planner, wrong = planners()["naive"](), 0
    for seed in range(8):
        logs = drawn.logs(1000, seed)
        made = planner.plan(evidence_of(logs), horizon=2, seed=0)
        bounds = cross_fitted_bounds(logs, planner, horizon=2)
        true = drawn.value(made.probabilities)
        wrong += bounds.lower > true
        assert bounds.lower_confounded <= true
    assert wrong > 4


def test_agreement_is_the_probability_of_the_logged_actions():
    """By hand: two episodes of two decisions, and a table."""
    logs = Logs(
        observation=np.array([[0, 1, NOTHING], [1, 0, NOTHING]] * 80),
        action=np.array([[0, 1], [1, 1]] * 80),
        reward=np.array([[0.0, 1.0], [0.0, -1.0]] * 80),
        done=np.ones(160, bool),
        task=np.zeros(160, int),
        probability=None,
        observations=("x", "y"),
        actions=("a", "b"),
        tasks=("0",),
    )

    class Half:
        name = "half"

        def plan(self, evidence, *, horizon, seed):
            from sdm.data.planning import LogPlan

            return LogPlan(np.full((2, 2, 2), 0.5), 0.0)

    bounds = cross_fitted_bounds(logs, Half(), horizon=2, folds=2)
    assert bounds.agreement == 0.25
    # Returns 1 and -1 with the weight 1/4, and the worst, -1, with 3/4.
    sure = np.array([0.25 - 0.75, -1.0] * 80)
    assert sure.mean() - 0.15 < bounds.lower_confounded < sure.mean() - 0.02
    # In some random order, the bound is that of `lower_mean`.
    orders = (np.random.default_rng(i).permutation(160) for i in range(20))
    wanted = [lower_mean(sure[x], -1.0, confidence=0.95) for x in orders]
    assert min(wanted) <= bounds.lower_confounded <= max(wanted)
    assert bounds.worst == -1
    assert bounds.behavior == 0


def test_logged_returns_agree_with_the_exact_value_of_the_expert():
    drawn = world(9)
    total = drawn.logs(20000, 0).reward.sum(1)
    true = drawn.references["expert"]
    assert abs(total.mean() - true) < 4 * stats.sem(total)
    assert drawn.references["optimal"] > true
    assert drawn.ended.tolist() == [False] * 4 + [True] * 2


@pytest.mark.slow
def test_the_physician_of_sepsis_has_the_published_value_and_sees_more_than_the_logs():
    """Values with 20 decisions, against independent code; `docs/families/sepsis.md`."""
    unseen = ("diabetes", "glucose")
    drawn, every = (logged_world(SepsisFamily(), 20, x) for x in (unseen, ()))
    physician = np.broadcast_to(every.expert, (20, *every.expert.shape))
    assert every.value(physician) == pytest.approx(0.317473, abs=1e-6)
    assert len(drawn.observations) == 144 and drawn.seen.max() == 143
    with pytest.raises(ExperimentError, match="unknown component `sugar`"):
        logged_world(SepsisFamily(), 20, ("sugar",))
    with pytest.raises(ExperimentError, match=r"has no `published\(\)`"):
        logged_world(EnergyFamily(), 20)


def test_bad_input_is_named():
    logs = world(1).logs(6, 0)
    with pytest.raises(LogsError, match="6 episodes for 5 folds"):
        cross_fitted_bounds(logs, planners()["naive"](), horizon=T)
    with pytest.raises(ValueError, match="planner: must be one of baseline"):
        parse_planner("best")
    with pytest.raises(ValueError, match="unknown option `visits`"):
        parse_planner("support visits=3")
    with pytest.raises(ValueError, match="min_visits = 'x': must be a number"):
        parse_planner("support min_visits=x")
    with pytest.raises(ValueError, match="min_visits = 0"):
        parse_planner("support min_visits=0")
    with pytest.raises(ValueError, match="confidence = 1"):
        parse_planner("robust confidence=1")
    with pytest.raises(ValueError, match="registered already"):
        register_planner(type("Other", (), {"name": "naive"}))
    blind = Logs(
        **{
            **{k: getattr(logs, k) for k in logs.__dataclass_fields__},
            "observation": np.full_like(logs.observation, NOTHING),
        }
    )
    with pytest.raises(LogsError, match="nothing is observed"):
        evidence_of(blind)


def test_plan_command_writes_a_policy_that_ope_reads(tmp_path):
    table, out = tmp_path / "logs.csv", tmp_path / "plan"
    write_logs(world(1).logs(200, 0), table)
    call = ["plan", str(table), "--planner", "support", "--min-visits", "5"]
    runner = CliRunner()
    found = runner.invoke(app, [*call, "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    report = json.loads(found.stdout)
    assert report["lower"] < report["estimate"] and report["episodes"] == 200
    assert {x.name for x in out.iterdir()} == {
        "policy.npz",
        "config.json",
        "plan.json",
        "results.json",
        "README.md",
    }
    assert json.loads((out / "config.json").read_text())["planner"]["min_visits"] == 5
    policy = str(out / "policy.npz")
    checked = runner.invoke(
        app, ["ope", str(table), "--policy", policy, "--estimator", "wpdis", "--json"]
    )
    assert checked.exit_code == 0, checked.output
    again = runner.invoke(app, [*call, "--out", str(out)])
    assert again.exit_code != 0 and "--overwrite" in again.output
    unknown = runner.invoke(app, ["plan", str(table), "--planner", "best"])
    assert unknown.exit_code == 2 and "planner: must be one of" in unknown.output
