"""Tasks with mixed observability, from episodes to datasets, policies and gaps."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clinic_family import ClinicFamily
from random_momdps import outcomes, random_momdp
from tolerances import ROUNDING

from sdm.data.benchmark import EvaluationConfig, make_benchmark, regrets
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shards import read_manifest, read_shards
from sdm.environments import DecisionEnv
from sdm.evaluation.evaluate import evaluate_untrained
from sdm.policies.dpt_config import DPTConfig
from sdm.policies.dpt_samples import make_pool, random_transitions, shape_for
from sdm.policies.posterior import log_likelihood, mean_model
from sdm.policies.registry import check_rule, names, prepare
from sdm.solvers_jax import MOMDP, flat_mdp, flat_pomdp, hidden_model
from sdm.solvers_jax.momdp import MOMDPSolution
from sdm.solvers_jax.momdp_lookahead import plans_in
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.batches import join_tasks, per_task, take_tasks
from sdm.tasks.check_family import check_family
from sdm.tasks.models import states_observed
from sdm.tasks.momdp_flat import SeesVisible
from sdm.tasks.policy import TabularPolicy, uniform_random
from sdm.tasks.rollout import Trajectory, rollout, task_keys
from sdm.tasks.transitions import dense
from sdm.tasks.worlds import over_states, sizes_of

KEY = jax.random.key(0)
T = 4
KINDS = {
    "moving": {},
    "constant": {"constant": True, "hidden": 3},
    "lists": {"visible": 4, "lists": 2},
    "symbols": {"symbols": 2, "first": True},
    "rewards": {"observes_reward": True, "hidden": 3},
    "rewards, constant": {"observes_reward": True, "constant": True, "hidden": 4},
    "masked": {"masked": True, "actions": 3, "symbols": 2, "constant": True},
}


def some(*fast):
    """Parameters of which some are slow, since every one compiles."""
    slow = [pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k not in fast]
    return [*fast, *slow]


NEVER = pytest.param(False, marks=pytest.mark.slow)  # the hidden part never changes


def batch_of(model):
    return take_tasks(model, None)


def uniform(model, horizon=T):
    """The policy over observations that takes every action equally often."""
    _, actions, symbols = sizes_of(model)
    shape = (len(model.initial), horizon, symbols, actions)
    return TabularPolicy(jnp.full(shape, 1 / actions))


# Episodes


@pytest.mark.parametrize(
    "kind", ["moving", pytest.param("constant", marks=pytest.mark.slow)]
)
def test_episodes_are_those_of_the_flat_model(kind):
    model = random_momdp(0, batch=(3,), **KINDS[kind])
    _, hidden, _, symbols = model.sizes
    policy, keys = uniform(model), task_keys(KEY, 3)
    ours = rollout(keys, model, policy, horizon=T, episodes=40)
    flat = rollout(
        keys,
        flat_mdp(model),
        SeesVisible(policy, hidden, symbols),
        horizon=T,
        episodes=40,
    )
    np.testing.assert_array_equal(ours.observation, flat.observation // hidden)
    np.testing.assert_array_equal(ours.action, flat.action)
    np.testing.assert_array_equal(ours.reward, flat.reward)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["symbols", "lists"])
def test_mean_returns_and_symbols_have_their_exact_law(kind):
    """Means of 4,000 episodes are within 4.5 standard errors: 1e-5 of false alarms."""
    model = batch_of(random_momdp(1, **KINDS[kind]))
    played = rollout(task_keys(KEY, 1), model, uniform(model), horizon=T, episodes=4000)
    factor = float(model.discount) ** np.arange(T)
    earned = (np.asarray(played.reward[0]) * factor).sum(-1)
    states = states_observed(model)
    exact = evaluate_policy(states, uniform_random(states, T).probabilities)
    error = earned.std() / np.sqrt(len(earned))
    assert abs(earned.mean() - float(exact[0])) < 4.5 * error
    pomdp = flat_pomdp(dataclasses.replace(model, observes_reward=False))
    state = np.asarray(pomdp.initial[0])
    first = state @ np.asarray(pomdp.initial_observation[0])
    moved = np.einsum("s,sam->am", state, dense(pomdp.transition)[0]) / model.sizes[2]
    second = np.einsum("am,amo->o", moved, np.asarray(pomdp.observation[0]))
    for t, law in enumerate((first, second)):
        seen = np.bincount(played.observation[0, :, t], minlength=len(law)) / 4000
        assert (abs(seen - law) < 4.5 * np.sqrt(law * (1 - law) / 4000) + 1e-12).all()


def test_actions_that_are_not_admissible_are_refused():
    model = batch_of(random_momdp(2, **KINDS["masked"]))
    assert not np.asarray(model.admissible).all()
    with pytest.raises(ValueError, match="is not admissible in the state"):
        rollout(task_keys(KEY, 1), model, uniform(model), horizon=T, episodes=50)


@pytest.mark.slow
def test_tasks_with_one_dynamics_play_like_separate_ones():
    models = ClinicFamily().model({"cure": jnp.asarray([0.2, 0.9])}, "mdp")
    shared = hidden_model(models, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    apart = [take_tasks(shared, i) for i in range(3)]
    assert per_task(shared) == [False, False, True, False]
    assert all(x.batch == () for x in apart)
    whole = join_tasks([batch_of(x) for x in apart])
    keys = task_keys(KEY, 3)
    one, other = (
        rollout(keys, m, uniform(m), horizon=T, episodes=9) for m in (shared, whole)
    )
    for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_tasks_that_share_their_lists_are_taken_and_joined():
    model = ClinicFamily().hidden(jnp.asarray([0.2, 0.5, 0.9]))
    parts = [take_tasks(model, np.arange(i, i + 1)) for i in range(3)]
    assert parts[1].successors.shape == model.successors.shape
    np.testing.assert_array_equal(parts[1].transition[0], model.transition[1])
    again = join_tasks(parts)
    for ours, theirs in zip(
        jax.tree.leaves(again), jax.tree.leaves(model), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_an_environment_shows_the_visible_part_only():
    model = take_tasks(ClinicFamily().hidden(jnp.asarray([0.5])), 0)
    env = DecisionEnv(model, horizon=T)
    assert env.observation_space.n == 3
    seen, info = env.reset(seed=3)
    hidden = []
    for _ in range(200):
        assert seen == info["state"] // 2
        hidden.append(info["state"] % 2)
        seen, _, done, _, info = env.step(0)
        if done:
            seen, info = env.reset()
    assert 0 < np.mean(hidden) < 1
    with pytest.raises(ValueError, match="for one task"):
        DecisionEnv(batch_of(model))


# What decisions lose


def random_solution(model, horizon, seed=0):
    """Plans with random values: the identity holds for any."""
    random = np.random.default_rng(seed)
    visible, hidden, actions, _ = model.sizes
    shape = (1, horizon - 1, visible, 5)
    nothing = jnp.zeros(1)
    return MOMDPSolution(
        nothing,
        nothing,
        nothing,
        jnp.ones(1, bool),
        jnp.asarray(random.normal(size=(*shape, hidden))),
        jnp.asarray(random.integers(0, actions, shape), jnp.int32),
        jnp.asarray(random.normal(size=(1, visible, 2, hidden))),
        jnp.asarray(random.integers(0, actions, (1, visible, 2)), jnp.int32),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", some("repeated", "symbols", "rewards, constant"))
def test_losses_are_those_of_every_outcome(kind):
    """V_t - r - γ V_{t+1}, over outcomes by plain loops."""
    if kind == "repeated":
        model = random_momdp(3)
        order = jnp.broadcast_to(jnp.asarray([2, 0, 2]), (3, 2, 3))
        model = dataclasses.replace(model, successors=order)
    else:
        model = random_momdp(3, **KINDS[kind])
    found = random_solution(model, 3)
    plan = plans_in(found, batch_of(model))
    assert plan.repeated == (kind == "repeated")
    listed = dataclasses.replace(model, successors=model.listed())
    plain = jax.tree.map(np.asarray, listed)
    visible, hidden, actions, _ = model.sizes

    def value(t, x, weight):
        if t == 3:
            return 0.0
        plans = found.first_vector[0, x] if t == 0 else found.vector[0, t - 1, x]
        return float((np.asarray(plans) @ weight).max())

    random = np.random.default_rng(1)
    x, a = (random.integers(0, n, 6) for n in (visible, actions))
    b = random.dirichlet(np.ones(hidden), 6)
    known = (jnp.asarray(x[None], jnp.int32), jnp.asarray(b[None]))
    for t in range(3):
        lost = plan.lost(jnp.int32(t), known, jnp.asarray(a[None], jnp.int32))[0]
        for n in range(6):
            ahead = sum(
                value(t + 1, after, weight)
                for after, _, _, weight in outcomes(plain, b[n], x[n], a[n])
            )
            taken = b[n] @ plain.reward[x[n], :, a[n]] + 0.9 * ahead
            wanted = value(t, x[n], b[n]) - taken
            np.testing.assert_allclose(lost[n], wanted, atol=ROUNDING)


# The benchmark, policies and datasets


@pytest.fixture(scope="module")
def bed():
    return make_benchmark(
        EvaluationConfig(ClinicFamily(), T, 4, 2000, support=20, kind="pomdp")
    )


def test_the_family_is_valid():
    check_family(ClinicFamily(), "pomdp")
    check_family(ClinicFamily(), "mdp")


@pytest.mark.slow
def test_every_policy_that_fits_plays_and_loses_more_than_the_oracle(bed):
    fitting = names(bed.config.family, "pomdp")
    assert fitting == ("oracle", "random", "mean-plan", "bc", "ce", "psrl", "qmdp")
    found = {n: evaluate_untrained(n, bed) for n in fitting if n not in ("bc", "psrl")}
    assert found["oracle"].gap.mean == 0 and found["oracle"].agreement == 1
    for name, result in found.items():
        # The bounds of the oracle, by which another plan can seem to gain.
        slack = float((result.by_regret.high - result.by_regret.low) / 2)
        assert result.by_regret.mean > -slack - 1e-3, name
    gaps = {n: r.by_regret.mean for n, r in found.items()}
    assert gaps["random"] > 3 * max(gaps["ce"], gaps["qmdp"]) > 0
    assert gaps["random"] > gaps["mean-plan"] > gaps["ce"]


@pytest.mark.parametrize(
    "policy",
    [
        "always-treat",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("random", "psrl")),
    ],
)
def test_promised_value_minus_losses_is_the_return(bed, policy):
    """Unbiased estimates agree within 4.5 standard errors: 1e-4 of false alarms."""
    made = prepare(policy, bed)
    keys = task_keys(jax.random.key(7), 4)
    played = rollout(keys, bed.tasks.world, made.policy, horizon=T, episodes=2000)
    found, base = regrets(bed, played), bed.optimal_losses
    promised = found.optimal + base.lost.sum(-1).mean(-1)
    factor = float(bed.tasks.world.discount) ** np.arange(T)
    earned = (np.asarray(played.reward) * factor).sum(-1)
    lost = (found.lost + base.lost).sum(-1)
    difference = promised[:, None] - lost - earned
    assert (abs(difference.mean(-1)) < 4.5 * difference.std(-1) / 2000**0.5).all()
    if made.value is not None:  # exact, although states are hidden
        error = 4.5 * earned.std(-1) / 2000**0.5
        assert (abs(earned.mean(-1) - np.asarray(made.value)) < error).all()


def test_the_oracle_is_worth_what_its_bounds_say(bed):
    found = regrets(bed, bed.optimal_played)
    noise = 4.5 * bed.optimal_losses.lost.sum(-1).std(-1) / 2000**0.5 + ROUNDING
    assert (found.optimal >= np.asarray(bed.solution.lower) - noise).all()
    assert (found.optimal <= np.asarray(bed.solution.upper) + noise).all()


def test_policies_that_do_not_fit_say_why():
    for name in ("bayes-adaptive", "bayes-imitation", "observation-as-state"):
        with pytest.raises(ValueError, match=f"policy `{name}` does not fit pomdp"):
            check_rule(name, ClinicFamily(), "pomdp")


def test_a_table_over_symbols_has_no_exact_value():
    model = batch_of(random_momdp(1, **KINDS["symbols"]))
    assert over_states(model, uniform(model).probabilities) is None


@pytest.mark.slow
@pytest.mark.parametrize("heals", [True, NEVER])
def test_the_posterior_is_that_of_the_flat_model(heals):
    family = ClinicFamily(heals=heals)
    models = family.hidden(jnp.asarray([0.1, 0.4, 0.95]))
    played = rollout(task_keys(KEY, 3), models, uniform(models), horizon=6, episodes=3)
    flat = flat_pomdp(models)
    for rewards in (False, True):
        ours = log_likelihood(models, played, rewards=rewards)
        theirs = log_likelihood(flat, played, rewards=rewards)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)  # 18 stages of rounding
    assert np.ptp(np.asarray(ours), axis=-1).min() > 0.05
    nothing = Trajectory(*(x[:, :0] for x in jax.tree.leaves(played)))
    assert (log_likelihood(models, nothing, rewards=False) == 0).all()


@pytest.mark.slow
def test_rewards_that_tell_the_hidden_part_count_in_the_posterior():
    """The reward of the last decision, after which nothing is observed, included."""
    models = random_momdp(4, batch=(3,), observes_reward=True, hidden=3)
    played = rollout(task_keys(KEY, 3), models, uniform(models), horizon=3, episodes=2)
    flat = flat_pomdp(dataclasses.replace(models, observes_reward=False))
    ours = log_likelihood(models, played, rewards=True)
    # Floors of impossible outcomes are applied per observation, or per stage.
    theirs = log_likelihood(flat, played, rewards=True)
    possible = np.asarray(theirs) > np.log(1e-12) / 2
    assert possible.any() and not possible.all()
    np.testing.assert_allclose(ours[possible], theirs[possible], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("heals", [True, NEVER])
def test_the_mean_model_has_the_mean_of_joint_probabilities(heals):
    models = ClinicFamily(heals=heals).hidden(jnp.asarray([0.1, 0.5, 0.9]))
    weight = jnp.asarray([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    mean = mean_model(models, weight)
    assert isinstance(mean, MOMDP) and mean.batch == (2,)
    every = dense(states_observed(models).transition)
    wanted = jnp.einsum("bg,gsam->bsam", weight, every)
    found = dense(states_observed(mean).transition)
    np.testing.assert_allclose(found, wanted, atol=ROUNDING)


@pytest.mark.slow
def test_a_dataset_has_the_certified_bounds_and_is_read_for_training(tmp_path):
    config = OracleConfig(ClinicFamily(), T, 5, 3, kind="pomdp")
    found = write_oracle_dataset(config, tmp_path / "data")
    assert found.missed_gap == 0 and found.relative_gap_max <= 0.01
    table, manifest = read_shards(tmp_path / "data"), read_manifest(tmp_path / "data")
    assert json.loads(json.dumps(manifest))["points"] == 16
    assert manifest["certified_error"] == pytest.approx(found.gap_max)
    lower, upper = (table[name].to_numpy() for name in ("lower", "upper"))
    assert (lower <= upper).all() and len(table) == 15
    assert np.stack(table["observation"].to_numpy()).max() == 2
    for x, y in zip(table["action"], table["optimal_action"], strict=True):
        assert x == y
    pool = make_pool(manifest, table, contexts="transitions")
    assert pool.optimal is None
    assert shape_for(DPTConfig(str(tmp_path / "data")), manifest).components == (3,)
    task = jnp.zeros(1, jnp.int32)
    moves = random_transitions(KEY, pool.world, task, 6000, rewards=True)
    # Uniform states: the next symptom has the mean law over them.
    chance = dense(states_observed(pool.world).transition)[0]
    law = np.asarray(chance.mean((0, 1)).reshape(3, 2).sum(-1))
    seen = np.bincount(moves.following[0], minlength=3) / 6000
    assert (abs(seen - law) < 4.5 * np.sqrt(law * (1 - law) / 6000)).all()
