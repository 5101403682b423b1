"""Regret by the performance-difference lemma, and results in every model of a set."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.benchmark import (
    EvaluationConfig,
    make_benchmark,
    regrets,
)
from sdm.data.optimality_gap import narrower, optimality_gap, regret_gap
from sdm.evaluation.evaluate import evaluate, evaluate_untrained
from sdm.evaluation.loss_figure import save_loss_figure
from sdm.evaluation.result import EveryModel
from sdm.evaluation.tables import result_row
from sdm.policies.registry import prepare
from sdm.tasks.belief import true_model
from sdm.tasks.families.energy import EnergyFamily
from sdm.tasks.families.maintenance import MaintenanceFamily
from sdm.tasks.rollout import rollout, task_keys
from sdm.tasks.rollout_in_models import all_models, play_in_models

SMALL = EnergyFamily(max_energy=3)
KEY = jax.random.key(0)


def half_width(values):
    return stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)


@pytest.fixture(scope="module")
def mdp_bed():
    return make_benchmark(EvaluationConfig(EnergyFamily(), 10))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "returns", "regret", "exact"),
    [
        ("bayes-imitation", (0.179, 0.165), (0.096, 0.045), 0.084),
        ("ce", (0.864, 0.299), (0.730, 0.210), 0.724),
    ],
)
def test_the_estimates_of_an_independent_computation_are_reproduced(
    mdp_bed, policy, returns, regret, exact
):
    """The reference has three decimals, in per cent."""
    row = result_row(evaluate_untrained(policy, mdp_bed))
    for name, (middle, half) in (("returns", returns), ("regret", regret)):
        assert row[f"{name}_percent"] == pytest.approx(middle, abs=6e-4)
        width = row[f"{name}_ci_high"] - row[f"{name}_ci_low"]
        assert width / 2 == pytest.approx(half, abs=6e-4)
    assert row["exact_gap_percent"] == pytest.approx(exact, abs=6e-4)
    assert row["estimator"] == "regret" and row["gap_percent"] == row["regret_percent"]


def test_the_headline_of_a_poor_policy_is_its_difference_of_returns(mdp_bed):
    row = result_row(evaluate_untrained("random", mdp_bed))
    assert row["estimator"] == "returns"
    assert row["gap_percent"] == row["returns_percent"] != row["regret_percent"]
    widths = [
        row[f"{name}_ci_high"] - row[f"{name}_ci_low"] for name in ("returns", "regret")
    ]
    assert widths[0] < widths[1]


def test_no_decision_in_an_mdp_gains_and_the_optimal_ones_lose_nothing(mdp_bed):
    bed = mdp_bed
    found = regrets(bed, bed.optimal_played)
    assert (found.lost == 0).all() and (found.slack == 0).all()
    assert found.optimal == pytest.approx(np.asarray(bed.solution.value))
    other = dataclasses.replace(
        bed.optimal_played, action=2 - bed.optimal_played.action
    )
    lost = regrets(bed, other).lost
    assert (lost >= 0).all() and (lost > 0).any()
    # A wrong action loses V_t - Q_t, discounted to the first stage.
    b, n, t = np.argwhere(lost > 0)[-1]
    s, a = (int(x[b, n, t]) for x in (other.observation, other.action))
    q = np.asarray(bed.solution.q)[b, t, s]
    assert lost[b, n, t] == pytest.approx(0.95**t * (q.max() - q[a]))


CONFIGS = {
    "mdp": EvaluationConfig(SMALL, 5, tasks=6, trajectories=4000),
    "pomdp": EvaluationConfig(SMALL, 5, tasks=6, trajectories=4000, kind="pomdp"),
    "pomdp that shows rewards": EvaluationConfig(
        SMALL, 4, tasks=6, trajectories=4000, kind="pomdp", observes_reward=True
    ),
    "maintenance": EvaluationConfig(
        MaintenanceFamily(), 4, tasks=4, trajectories=4000, kind="pomdp"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=pytest.mark.slow) if x == "maintenance" else x
        for x in CONFIGS
    ],
)
@pytest.mark.parametrize("policy", ["random", "mean-plan"])
def test_promised_value_minus_losses_is_the_return(name, policy):
    """Two unbiased estimates agree within 4.5 standard errors in each of 4 to 6 tasks.

    The chance of a false alarm is below 1e-4 over all tests here.
    """
    bed = make_benchmark(CONFIGS[name])
    made = prepare(policy, bed)
    config = bed.config
    played = rollout(
        task_keys(KEY, config.tasks),
        bed.tasks.world,
        made.policy,
        horizon=config.horizon,
        episodes=config.trajectories,
    )
    found = regrets(bed, played)
    base = bed.optimal_losses
    lost = (found.lost + base.lost).sum(-1)
    promised = found.optimal + base.lost.sum(-1).mean(-1)
    discount = float(bed.tasks.world.discount) ** np.arange(config.horizon)
    earned = (np.asarray(played.reward) * discount).sum(-1)
    difference = promised[:, None] - lost - earned
    error = difference.std(-1) / np.sqrt(config.trajectories)
    assert (abs(difference.mean(-1)) < 4.5 * error).all()
    # The oracle's expected return lies within the certified bounds of its plan.
    # The lookahead computes in single precision: 1e-7 of values below 10 are 1e-6.
    noise = 4.5 * base.lost.sum(-1).std(-1) / np.sqrt(config.trajectories) + 1e-6
    assert (found.optimal >= np.asarray(bed.solution.lower) - noise).all()
    assert (found.optimal <= np.asarray(bed.solution.upper) + noise).all()


@pytest.mark.slow
def test_the_bounds_of_the_oracle_widen_the_interval_upwards():
    bed = make_benchmark(EvaluationConfig(SMALL, 5, tasks=8, kind="pomdp"))
    found = regrets(bed, bed.optimal_played)
    assert (found.lost == 0).all() and (found.slack > 0).all()
    gap = evaluate_untrained("oracle", bed).by_regret
    assert gap.mean == gap.low == 0
    assert gap.high == pytest.approx((found.slack / found.optimal).mean())
    row = result_row(evaluate_untrained("oracle", bed))
    assert row["regret_slack_percent"] == pytest.approx(row["regret_ci_high"])
    wide = regret_gap([1.0, 2.0], [10.0, 10.0], [1.0, 3.0])
    thin = regret_gap([1.0, 2.0], [10.0, 10.0])
    assert wide.high == pytest.approx(thin.high + 0.2) and wide.low == thin.low


@pytest.mark.slow
def test_the_parts_of_stages_and_states_sum_to_the_gap(mdp_bed):
    hidden = make_benchmark(EvaluationConfig(SMALL, 5, tasks=8, kind="pomdp"))
    for bed in (mdp_bed, hidden):
        result = evaluate_untrained("mean-plan", bed)
        row, gap = result_row(result), 100 * result.by_regret.mean
        assert sum(row["lost_by_stage"]) == pytest.approx(gap)
        assert len(row["lost_by_stage"]) == bed.config.horizon
        states = row["lost_by_state"]
        assert sum(x["points"] for x in states) == pytest.approx(gap)
        assert sum(x["visits"] for x in states) == pytest.approx(1)
        points = [x["points"] for x in states]
        assert points == sorted(points, reverse=True) and points[0] > 0.1
        assert all(x["state"].startswith("energy ") for x in states)


@pytest.mark.slow
def test_the_figure_shows_where_policies_lose(mdp_bed, tmp_path):
    rows = {x: result_row(evaluate_untrained(x, mdp_bed)) for x in ("ce", "mean-plan")}
    save_loss_figure(rows, tmp_path / "where.png")
    assert (tmp_path / "where.png").read_bytes().startswith(b"\x89PNG")
    save_loss_figure(rows, tmp_path / "where.svg")
    drawn = (tmp_path / "where.svg").read_text()
    worst = rows["mean-plan"]["lost_by_state"][0]["state"]
    assert worst in drawn and "mean-plan" in drawn
    with pytest.raises(ValueError, match=r"must end in \.png, \.pdf or \.svg"):
        save_loss_figure(rows, tmp_path / "where.txt")
    with pytest.raises(ValueError, match="no regret is known"):
        save_loss_figure({"ce": {}}, tmp_path / "where.png")
    assert sorted(x.name for x in tmp_path.iterdir()) == ["where.png", "where.svg"]


def test_a_figure_that_cannot_be_drawn_is_refused_before_acting(
    mdp_bed, tmp_path, monkeypatch
):
    def no_acting(*_, **__):
        raise AssertionError("acted")

    def said(figure):
        words = [*"eval --policy ce --tasks 2 --figure".split(), figure]
        return CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])

    monkeypatch.setattr("sdm.evaluation.evaluate.evaluate", no_acting)
    monkeypatch.setattr("sdm.data.benchmark.make_benchmark", no_acting)
    found = said("where.txt")
    assert found.exit_code == 2 and "must end in .png" in found.output
    unknown = dataclasses.replace(mdp_bed, optimal_losses=None)
    monkeypatch.setattr("sdm.data.benchmark.make_benchmark", lambda _: unknown)
    found = said("where.png")
    assert found.exit_code == 2 and "no regret is known" in found.output
    assert not (tmp_path / "out").exists()


def test_values_of_each_task_give_the_gaps_and_their_intervals(mdp_bed):
    row = result_row(evaluate_untrained("ce", mdp_bed), per_task=True)
    for lost, best, name in (
        (
            np.subtract(row["optimal_returns"], row["returns"]),
            row["optimal_returns"],
            "returns",
        ),
        (row["regrets"], row["optimal_values"], "regret"),
    ):
        gaps = 100 * np.asarray(lost) / np.asarray(best)
        # Seven digits of returns are 1e-5 of their differences.
        assert gaps.mean() == pytest.approx(row[f"{name}_percent"], rel=1e-5)
        low = gaps.mean() - half_width(gaps)
        assert low == pytest.approx(row[f"{name}_ci_low"], rel=1e-5)
    assert "returns" not in result_row(evaluate_untrained("ce", mdp_bed))


def test_the_rule_looks_at_widths_only():
    near, far = optimality_gap([9, 8], [10, 10]), optimality_gap([9, 5], [10, 10])
    assert narrower(near, far) is near and narrower(far, near) is near
    assert narrower(near, optimality_gap([9, 8], [10, 10])) is not near
    one = optimality_gap([9], [10])  # a single task has no interval
    assert narrower(one, regret_gap([1.0], [10.0])) is not one


@pytest.mark.slow
def test_the_headline_covers_the_exact_gap():
    """At least 98 of 120 headline intervals of 95 % per policy contain the exact gap.

    At a coverage of 0.9, fewer than 98 would have a probability of 3e-3; intervals from
    40 tasks of skewed gaps cover somewhat less than their nominal 95 %.
    """
    for policy in ("ce", "mean-plan"):
        hits = 0
        for seed in range(120):
            bed = make_benchmark(
                EvaluationConfig(SMALL, 4, tasks=40, trajectories=4, seed=seed)
            )
            result = evaluate_untrained(policy, bed)
            truth = result.exact_gap.mean
            hits += result.gap.low <= truth <= result.gap.high
        assert hits >= 98, (policy, hits)


@pytest.fixture(scope="module")
def ambiguous_bed():
    family = EnergyFamily(max_energy=3, models=3, alpha=0.25)
    return make_benchmark(
        EvaluationConfig(family, 4, tasks=5, trajectories=7, kind="apomdp")
    )


@pytest.mark.slow
def test_episodes_in_every_model_are_those_in_each_model(ambiguous_bed):
    bed, keys = ambiguous_bed, task_keys(KEY, 5)
    every = play_in_models(rollout, keys, bed.worlds, bed.oracle, horizon=4, episodes=7)
    assert every.action.shape == (5, 3, 7, 4)
    differ = 0
    for k in range(3):
        one = rollout(
            keys, true_model(bed.tasks.model, k), bed.oracle, horizon=4, episodes=7
        )
        for ours, theirs in zip(
            jax.tree.leaves(every), jax.tree.leaves(one), strict=True
        ):
            np.testing.assert_array_equal(ours[:, k], theirs)
        differ += bool((one.observation != every.observation[:, 0]).any())
    assert differ == 2  # the other models lead elsewhere


@pytest.mark.slow
def test_policies_stepped_from_the_host_play_in_every_model(ambiguous_bed):
    """A language model's episodes in the first model are those without the others."""
    bed = ambiguous_bed
    alone = make_benchmark(dataclasses.replace(bed.config, every_model=False))
    assert (bed.models, alone.models) == (3, 1)
    both, one = (evaluate(["icl:tiny"], x)[0] for x in (bed, alone))
    np.testing.assert_array_equal(both.returns, one.returns)
    assert one.in_every_model is None
    found = both.in_every_model
    np.testing.assert_array_equal(found.returns[:, 0], one.returns)
    assert (found.returns[:, 1:] != found.returns[:, :1]).any()
    np.testing.assert_array_equal(found.optimal, bed.optimal_by_model)


def test_measures_over_models_are_worst_mixture_and_mean():
    ours = np.array([[4.0, 2.0, 6.0], [1.0, 1.0, 1.0]])
    best = np.array([[8.0, 4.0, 12.0], [2.0, 1.0, 3.0]])
    gaps = EveryModel(0.25, ours, best).gaps()
    assert gaps["worst_model"].mean == pytest.approx((1 / 2 + 0) / 2)
    # 0.25 × worst + 0.75 × best: 5 of 10, and 1 of 2.5.
    assert gaps["alpha_meu"].mean == pytest.approx((1 / 2 + 3 / 5) / 2)
    assert gaps["random_model"].mean == pytest.approx((1 / 2 + 1 / 2) / 2)


@pytest.mark.slow
def test_rows_of_ambiguous_tasks_have_the_gaps_over_models(ambiguous_bed):
    row = result_row(evaluate_untrained("random", ambiguous_bed), per_task=True)
    # Their values are not expected returns, so that no regret is known.
    assert row["estimator"] == "returns" and "regret_percent" not in row
    assert "regrets" not in row and "lost_by_stage" not in row
    ours, best = (
        np.asarray(row[name])
        for name in ("returns_by_model", "optimal_returns_by_model")
    )
    assert ours.shape == best.shape == (5, 3)
    np.testing.assert_allclose(ours[:, 0], row["returns"])
    gaps = 100 * (1 - ours.min(-1) / best.min(-1))
    assert row["worst_model_gap_percent"] == pytest.approx(gaps.mean(), rel=1e-6)
    assert row["worst_model_return_mean"] == pytest.approx(ours.min(-1).mean())
    assert row["random_model_return_mean"] == pytest.approx(ours.mean())
    low = gaps.mean() - half_width(gaps)
    assert row["worst_model_ci_low"] == pytest.approx(low, rel=1e-6)
    gaps = 100 * (1 - ours.mean(-1) / best.mean(-1))
    assert row["random_model_gap_percent"] == pytest.approx(gaps.mean(), rel=1e-6)
    oracle = result_row(evaluate_untrained("oracle", ambiguous_bed))
    assert oracle["worst_model_gap_percent"] == oracle["alpha_meu_gap_percent"] == 0


@pytest.mark.slow
def test_a_set_of_one_model_has_no_gaps_over_models():
    family = EnergyFamily(max_energy=3, models=1)
    config = EvaluationConfig(family, 2, tasks=2, trajectories=2, kind="apomdp")
    row = result_row(evaluate_untrained("random", make_benchmark(config)))
    assert "worst_model_gap_percent" not in row


@pytest.mark.slow
def test_models_of_a_batch_of_sets_are_in_a_row(ambiguous_bed):
    model = ambiguous_bed.tasks.model
    flat = all_models(model)
    assert len(flat.reward) == 15
    for k in range(3):
        one = true_model(model, k)
        np.testing.assert_array_equal(flat.transition[4 * 3 + k], one.transition[4])
        np.testing.assert_array_equal(flat.observation[4 * 3 + k], one.observation[4])
        np.testing.assert_array_equal(flat.reward[4 * 3 + k], one.reward[4])
