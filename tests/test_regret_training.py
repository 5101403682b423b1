"""Regret-minimising fine-tuning of linear self-attention, against its prediction."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from tolerances import ROUNDING
from typer.testing import CliRunner

from sdm.cli import app
from sdm.theory.regret_study import essential, play, step_of, study
from sdm.theory.regret_training import (
    SPACES,
    Layer,
    Setting,
    act,
    alternating,
    attend,
    iterate,
    layer_of,
    predicted_step,
    regret,
    regret_bound,
    sample_rewards,
    selected,
    selection_gain,
)


def leader(setting, step):
    """The layer that follows the regularised leader."""
    zero = np.zeros(setting.dim)
    return Layer(step * np.eye(setting.dim), zero, zero)


def some_layer(generator, dim, size=1.0):
    parts = [size * generator.normal(size=x) for x in ((dim, dim), dim, dim)]
    return Layer(*parts)


def test_the_layer_sums_over_past_rewards_only():
    generator = np.random.default_rng(0)
    layer, rewards = some_layer(generator, 3), generator.normal(size=(2, 4, 3))
    found = np.asarray(attend(layer, jnp.asarray(rewards)))
    for n in range(2):
        for t in range(4):
            wanted = np.zeros(3)
            for r in rewards[n, :t]:
                wanted += (layer.value @ r + layer.offset) * (layer.key @ r + 1)
            np.testing.assert_allclose(found[n, t], wanted, atol=ROUNDING)
    again = layer_of(layer.flat(), 3)
    for one, other in zip(again, layer, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("space", SPACES)
def test_regret_is_that_of_the_best_fixed_action(space):
    setting = Setting(space, radius=2.0)
    generator = np.random.default_rng(0)
    rewards = generator.normal(size=(3, 5, 3))
    output = generator.normal(size=(3, 5, 3)) * 3
    policy = np.asarray(act(setting, jnp.asarray(output)))
    found = regret(setting, policy, rewards)
    for n, t in ((0, 0), (1, 3), (2, 4)):
        total = rewards[n, : t + 1].sum(0)
        best = (
            total.max()
            if space == "simplex"
            else -optimize.minimize(
                lambda x, total=total: -x @ total,
                np.zeros(3),
                constraints={"type": "ineq", "fun": lambda x: 4 - x @ x},
            ).fun
        )
        earned = (policy[n, : t + 1] * rewards[n, : t + 1]).sum()
        # The constrained optimum is numerical.
        assert found[n, : t + 1].sum() == pytest.approx(best - earned, abs=1e-5)
    if space == "simplex":
        np.testing.assert_allclose(policy.sum(-1), 1, atol=ROUNDING)
        assert (policy > 0).all()
        return
    norm, own = np.linalg.norm(policy, axis=-1), np.linalg.norm(output, axis=-1)
    np.testing.assert_allclose(norm, np.minimum(own, 2), atol=ROUNDING)
    np.testing.assert_allclose(policy / norm[..., None], output / own[..., None])
    with pytest.raises(ValueError, match="radius = inf"):
        regret(dataclasses.replace(setting, radius=np.inf), policy, rewards)


def test_the_gain_of_selection_is_a_mean_of_order_statistics():
    assert selection_gain(2, 1) == pytest.approx(1 / np.sqrt(np.pi), abs=1e-9)
    assert selection_gain(5, 5) == pytest.approx(0, abs=1e-9)
    drawn = np.sort(np.random.default_rng(0).normal(size=(40_000, 10)))[:, -3:].mean(-1)
    error = drawn.std() / 200
    assert abs(drawn.mean() - selection_gain(10, 3)) < 4 * error


@pytest.mark.parametrize("space", SPACES)
def test_kept_episodes_are_those_of_lowest_regret(space):
    setting = Setting(space, scenarios=20, episodes=4, kept=1)
    rewards = sample_rewards(np.random.default_rng(0), setting, 20, 6)
    layer = leader(setting, 0.1)
    every = dataclasses.replace(setting, kept=3)
    one, three = (
        selected(np.random.default_rng(1), x, layer, rewards) for x in (setting, every)
    )
    earned = (one * rewards).sum((1, 2)), (three * rewards).sum((1, 2))
    assert (earned[0] >= earned[1]).all() and (earned[0] > earned[1]).any()
    total = regret(setting, one, rewards).sum(-1)
    more = regret(setting, three, rewards).sum(-1)
    np.testing.assert_allclose(
        more - total, earned[0] - earned[1], atol=1e-9
    )  # the comparator is common


def test_the_step_is_its_expectation():
    setting = Setting(dim=2, horizon=5)
    rewards = sample_rewards(np.random.default_rng(0), setting, 200_000, 5)
    past = np.cumsum(rewards, 1) - rewards
    size = np.sqrt((rewards**2).sum((1, 2)))
    ratio = (rewards * past).sum((1, 2)) / size
    scale = 0.3 * selection_gain(10, 2) / (past**2).sum((1, 2)).mean()
    error = scale * ratio.std() / np.sqrt(200_000)
    # Five standard errors, and half a per cent for that of the denominator.
    wanted = scale * ratio.mean()
    assert abs(predicted_step(setting) - wanted) < 5 * error + 0.005 * wanted


@pytest.mark.slow
@pytest.mark.parametrize("start", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_an_iteration_adds_a_multiple_of_the_identity(start):
    setting = Setting(radius=np.inf, scenarios=4000)
    generator = np.random.default_rng(0)
    first = some_layer(generator, 3, start)._replace(offset=np.zeros(3))
    first = first._replace(key=np.zeros(3))
    after = iterate(generator, setting, first)
    grown = np.asarray(after.value) - first.value
    step = predicted_step(setting)
    # Least squares: the deviation of a kept action is at most that of the exploration,
    # of which two are averaged.
    past = np.arange(20)
    spread = (past * (1 + past * 0.25)).sum()
    error = 0.3 / np.sqrt(2 * 4000 * spread)
    assert np.abs(grown - step * np.eye(3)).max() < 4 * error < 0.2 * step
    assert np.abs(after.offset).max() < 0.01


@pytest.mark.slow
def test_the_first_iteration_in_the_simplex_is_as_predicted():
    setting = Setting("simplex", scenarios=1500)
    steps = [
        step_of(
            setting, iterate(np.random.default_rng(seed), setting, leader(setting, 0))
        )
        for seed in range(3)
    ]
    found = np.array([step for step, _ in steps])
    # Kept scores are normal up to terms of order 1/T, and three seeds tell the error.
    error = found.std(ddof=1) / np.sqrt(3)
    assert abs(found.mean() - predicted_step(setting)) < 4 * error + 0.03 * found.mean()
    assert min(alignment for _, alignment in steps) > 0.97


@pytest.mark.parametrize("space", SPACES)
def test_the_bound_holds_for_every_sequence(space):
    setting = Setting(space, noise=1.0)
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], size=(40, 60, 3))
    sequences = np.concatenate(
        [
            sample_rewards(generator, setting, 40, 60),
            signs,
            signs * generator.uniform(size=(40, 1, 3)),
            alternating(setting, 60),
            np.tile([[0.0, 1.0, 0.5]], (60, 1))[None],
        ]
    )
    closest = []
    for step in (0.01, 0.1, 0.5, 2.0):
        total = play(setting, leader(setting, step), sequences).sum(-1)
        bound = regret_bound(setting, step, sequences)
        assert (total <= bound + ROUNDING).all()
        closest.append((total / bound).max())
    assert max(closest) > 0.5  # the bound is not empty


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
def test_a_step_that_never_stops_growing_has_linear_regret(space):
    setting = Setting(space)
    growth = {}
    for name, step in (("leader", 1e4), ("tuned", None)):
        ends = []
        for horizon in (100, 400):
            chosen = step or 0.5 / np.sqrt(horizon)
            found = play(
                setting, leader(setting, chosen), alternating(setting, horizon)
            )
            ends.append(found.sum())
        growth[name] = ends[1] / ends[0]
    assert growth["leader"] == pytest.approx(4, rel=0.05)  # 4 times the rounds
    assert growth["tuned"] < 2.2  # √4


@pytest.mark.slow
def test_training_finds_the_direction_of_the_identity_and_sublinear_regret():
    setting = Setting("simplex", scenarios=500)
    found = study(setting, iterations=6, horizon=60, tests=300, seed=1)
    assert [row.iteration for row in found.progress] == list(range(7))
    steps = [row.step for row in found.progress]
    assert (np.diff(steps) > 0).all()
    assert found.progress[-1].alignment > 0.98 > found.progress[0].alignment
    value = essential(setting, np.asarray(found.layers[1].value))
    assert found.progress[-1].alignment == pytest.approx(
        np.corrcoef(value.ravel(), essential(setting, np.eye(3)).ravel())[0, 1]
    )
    # Regret over longer horizons than those of training, in random scenarios.
    late, early = (x.random[:, 30:].sum(-1).mean() for x in (found.end, found.start))
    assert late < 0.3 * early
    assert found.end.random.sum(-1).mean() < found.end.bound


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"space": "cube"}, "space = 'cube': must be one of ball, simplex"),
        ({"dim": 1}, "dim = 1: must be 2 or more"),
        ({"noise": 0.0}, "noise = 0: must be above 0"),
        ({"spread": -1.0}, "spread = -1: must be 0 or more"),
        ({"kept": 10}, "kept = 10: must be 1 or more, and fewer than the 10 episodes"),
    ],
)
def test_a_setting_out_of_range_is_named(entry, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Setting(**entry)


@pytest.mark.slow
def test_the_command_reports_limit_and_exponents(tmp_path):
    small = ["--iterations", "2", "--scenarios", "60", "--tests", "50", "--horizon"]
    small += ["8", "--test-horizon", "20", "--out", str(tmp_path / "r"), "--json"]
    result = CliRunner().invoke(app, ["theory", "regret", *small])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["progress"]) == 6 and len(report["regret"]) == 8
    random = [row for row in report["regret"] if row["rewards"] == "random"]
    assert all(r["exponent_low"] < r["exponent"] < r["exponent_high"] for r in random)
    assert (tmp_path / "r" / "training.png").is_file()
    assert (tmp_path / "r" / "progress.csv").is_file()
    wrong = CliRunner().invoke(app, ["theory", "regret", "--kept", "20"])
    assert wrong.exit_code == 2 and "kept = 20" in wrong.stderr
