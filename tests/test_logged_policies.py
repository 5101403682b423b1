"""Policies of `sdm eval` along logged histories.

Along its own episodes, a deterministic policy must take every logged action; along
others, its memory is compared with Bayes' rule in loops.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.benchmark import EvaluationConfig, Shown, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.logs import Logs
from sdm.data.logs.simulate import simulate_logs
from sdm.data.logs.write import write_logs
from sdm.data.off_policy.logged_policy import PolicyOptions, parse_logged_policy
from sdm.data.request import OracleConfig
from sdm.policies.dpt_config import DPTConfig
from sdm.policies.dpt_training import train_dpt
from sdm.policies.posterior import IMPOSSIBLE
from sdm.policies.registry import prepare
from sdm.policies.spec import ActingOptions, parse_policy
from sdm.policies.untrained.bayes_adaptive import candidate_plan
from sdm.solvers_jax import EnergyFamily, hidden_model, load_solution, save_npz
from sdm.tasks.families.bandit import BanditFamily
from sdm.tasks.families.garnet import GarnetFamily
from sdm.tasks.policy import TabularPolicy, uniform_random
from sdm.tasks.rollout import Trajectory, rollout
from sdm.tasks.transitions import take_tasks

ENERGY = EnergyFamily(max_energy=3)
ARMS = BanditFamily(arms=2)


def benchmark(family, kind, *, support=2, horizon=4, **options):
    config = EvaluationConfig(
        family, horizon, 3, 4, support, kind=kind, demonstrations="random", **options
    )
    return make_benchmark(config)


def logs_of(bed, played):
    """Logs in which each task's demonstrations precede the episodes of a policy."""
    both = [
        np.concatenate([np.asarray(a), np.asarray(b)], 1)
        for a, b in zip(
            jax.tree.leaves(bed.support), jax.tree.leaves(played), strict=True
        )
    ]
    seen, action, reward = (x.reshape(-1, x.shape[-1]) for x in both)
    tasks = bed.config.tasks
    spaces, kind = bed.config.family.spaces, bed.config.kind
    return Logs(
        np.pad(seen, ((0, 0), (0, 1)), constant_values=-1),
        action,
        np.asarray(reward, float),
        np.zeros(len(seen), bool),
        np.repeat(np.arange(tasks), len(seen) // tasks),
        None,
        tuple(map(str, range(spaces.symbols(kind)))),
        spaces.actions,
        tuple(map(str, range(tasks))),
    )


def played_by(bed, policy):
    worlds = bed.tasks.world
    return rollout(bed.keys, worlds, policy, horizon=bed.config.horizon, episodes=4)


def own_actions(bed, policy, text, **options):
    """The probability of each action that a policy takes in its own episodes."""
    logs = logs_of(bed, played_by(bed, policy))
    given = PolicyOptions(**options)
    found = parse_logged_policy(text, logs, given).probabilities_along(logs)
    assert found.sum(-1) == pytest.approx(np.ones(found.shape[:2]))
    taken = np.take_along_axis(found, logs.action[..., None], -1)[..., 0]
    shown = bed.config.support
    return taken.reshape(bed.config.tasks, -1, logs.horizon)[:, shown:]


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("family", "kind", "name", "support"),
    [
        slow(ENERGY, "mdp", "mean-plan", 2),
        (ENERGY, "mdp", "ce", 2),
        (ENERGY, "mdp", "ce", 0),
        slow(ENERGY, "mdp", "bayes-imitation", 2),
        (ENERGY, "mdp", "bayes-adaptive", 2),
        slow(ENERGY, "mdp", "bayes-adaptive", 0),
        slow(GarnetFamily(states=4), "mdp", "bayes-adaptive", 2),
        slow(ENERGY, "pomdp", "ce", 2),
        slow(ENERGY, "pomdp", "ce", 0),
        slow(ENERGY, "apomdp", "ce", 2),
        (ARMS, "mdp", "bayes-optimal", 0),
    ],
)
def test_a_policy_takes_every_action_of_its_own_episodes(family, kind, name, support):
    bed = benchmark(family, kind, support=support)
    policy = prepare(name, bed).policy
    options = {"family": family, "kind": kind, "demonstrations": support}
    assert (own_actions(bed, policy, name, **options) == 1).all()
    check_follow(bed, policy)


def check_follow(bed, policy):
    """Following replaces the last action in the memory, and nothing else."""
    if isinstance(policy, TabularPolicy):
        return
    seen = bed.support.observation[..., 0]
    seen = seen if seen.shape[1] else jnp.zeros((bed.config.tasks, 2), jnp.int32)
    keys = jax.random.split(jax.random.key(0), seen.shape)
    action, memory = policy.act(None, 0, seen, jnp.zeros(seen.shape), keys)
    other = (action + 1) % len(bed.config.family.spaces.actions)
    after = policy.follow(memory, other)
    pairs = zip(jax.tree.leaves(memory), jax.tree.leaves(after), strict=True)
    changed = [(a, b) for a, b in pairs if not np.array_equal(a, b)]
    assert len(changed) == 1
    np.testing.assert_array_equal(changed[0], (action, other))


def test_cloned_behavior_has_its_frequencies():
    bed = benchmark(ENERGY, "mdp")
    policy = prepare("bc", bed).policy
    played = played_by(bed, policy)
    found = own_actions(bed, policy, "bc", family=ENERGY, demonstrations=2)
    task, _, stage = np.indices(played.action.shape)
    table = np.asarray(policy.probabilities)
    expected = table[task, stage, played.observation, played.action]
    assert found == pytest.approx(expected)
    assert found.min() < 1  # random actions are cloned


def test_weights_follow_logged_actions_by_bayes_rule():
    family = GarnetFamily(states=4)
    bed = benchmark(family, "mdp", support=0)
    logs = logs_of(bed, played_by(bed, uniform_random(bed.states, 4)))
    options = PolicyOptions(family=family)
    found = parse_logged_policy("bayes-adaptive", logs, options)
    chances = found.probabilities_along(logs)
    plan = candidate_plan(Shown(found.config, no_episodes()))
    models = plan.models
    moves, first = np.asarray(models.transition), np.asarray(models.initial)
    expected = np.asarray(models.reward)
    differs = False
    for i in range(logs.episodes):
        weight = np.asarray(plan.weight[0])
        for t in range(logs.horizon):
            s = logs.observation[i, t]
            if t:
                before, done = logs.observation[i, t - 1], logs.action[i, t - 1]
                weight = weight * np.maximum(moves[:, before, done, s], IMPOSSIBLE)
                if plan.rewards:
                    same = expected[:, before, done] == logs.reward[i, t - 1]
                    weight = weight * np.maximum(same, IMPOSSIBLE)
            else:
                weight = weight * first[:, s]
            weight = weight / weight.sum()
            at = jnp.full((1, 1), s, jnp.int32), jnp.asarray(weight)[None, None]
            action = int(plan.plan.action(t, at)[0, 0])
            assert chances[i, t].tolist() == np.eye(len(logs.actions))[action].tolist()
            differs |= action != logs.action[i, t]
    assert differs


def no_episodes():
    none = np.zeros((1, 0, 4), np.int32)
    return Trajectory(jnp.asarray(none), jnp.asarray(none), jnp.asarray(none, float))


def trained_dpt(tmp_path, kind):
    config = OracleConfig(ENERGY, 4, 8, 3, kind=kind)
    write_oracle_dataset(config, tmp_path / "data")
    learner = DPTConfig(str(tmp_path / "data"), steps=3, batch_size=4)
    train_dpt(learner, tmp_path / "run")
    return f"dpt:{tmp_path / 'run'}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mdp", "pomdp"])
def test_a_learned_policy_takes_every_action_of_its_own_episodes(tmp_path, kind):
    name = trained_dpt(tmp_path, kind)
    bed = benchmark(ENERGY, kind)
    policy = parse_policy(name).build(bed, ActingOptions()).policy
    assert (own_actions(bed, policy, name) == 1).all()
    check_follow(bed, policy)
    logs = logs_of(bed, bed.optimal_played)
    with pytest.raises(ValueError, match=r"reads . to 2 demonstrations, found 3"):
        parse_logged_policy(name, logs, PolicyOptions(demonstrations=3))
    last = {x: getattr(logs, x)[:, -1:] for x in ("observation", "action", "reward")}
    longer = dataclasses.replace(
        logs, **{x: np.hstack([getattr(logs, x), y]) for x, y in last.items()}
    )
    with pytest.raises(ValueError, match=r"acts for 4 decisions, .* episodes of 5"):
        parse_logged_policy(name, longer)


def test_what_cannot_be_evaluated_is_refused():
    bed = benchmark(ENERGY, "mdp")
    logs, options = logs_of(bed, bed.optimal_played), PolicyOptions(family=ENERGY)
    for name, words in (
        ("oracle", "needs the true tasks.*choose from mean-plan, bc, ce"),
        ("ucb", "it is for bandits"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_logged_policy(name, logs, options)
    with pytest.raises(ValueError, match="`ce`: needs the tasks that are possible"):
        parse_logged_policy("ce", logs)
    with pytest.raises(ValueError, match="depends on random numbers"):
        parse_logged_policy("psrl", logs, options).probabilities_along(logs)
    few = dataclasses.replace(options, demonstrations=6)
    with pytest.raises(ValueError, match="more than 6 episodes of 4 decisions"):
        parse_logged_policy("ce", logs, few).probabilities_along(logs)
    strange = dataclasses.replace(logs, observations=(*logs.observations[:-1], "ill"))
    with pytest.raises(ValueError, match="`ce`: has no observation `ill`"):
        parse_logged_policy("ce", strange, options)
    ragged = logs.action.copy()
    ragged[:, -1] = -1
    ragged[0, -1] = 0
    short = dataclasses.replace(logs, action=ragged)
    with pytest.raises(ValueError, match=r"task `0` must have more than 2 .* found 1"):
        two = dataclasses.replace(options, demonstrations=2)
        parse_logged_policy("ce", short, two).probabilities_along(short)
    one = dataclasses.replace(
        logs, actions=logs.actions[:1], action=np.zeros_like(logs.action)
    )
    with pytest.raises(ValueError, match="the logs have no such action"):
        parse_logged_policy("ce", one, options)


def named_logs(episodes=4):
    """Logs of two tasks with named observations and actions."""
    task = ENERGY.model(ENERGY.parameters(jax.random.key(0), 2, split="test"), "mdp")
    behavior = uniform_random(task, 3)
    states = task.reward.shape[1]
    return simulate_logs(
        jax.random.key(1),
        task,
        behavior,
        horizon=3,
        episodes=episodes,
        observations=[f"energy {i}" for i in range(states)],
        actions=ENERGY.spaces.actions,
    )


def test_a_base_acts_in_context_of_logs_without_a_family():
    """It reads the names in the logs, and any rewards."""
    logs = named_logs()
    options = PolicyOptions(temperature=1.0, schema="words")
    policy = parse_logged_policy("icl:tiny", logs, options)
    found = policy.probabilities_along(logs)
    acted = found[logs.action >= 0]
    assert acted.sum(-1) == pytest.approx(np.ones(len(acted)))
    assert (acted > 0).all()
    contents = policy.policy.schema.contents
    assert contents.seen[0].values == logs.observations and contents.rewards
    assert contents.actions == logs.actions and policy.demonstrations == 2
    numbers = dataclasses.replace(
        logs, observations=tuple(map(str, range(len(logs.observations))))
    )
    with_family = dataclasses.replace(options, family=ENERGY, demonstrations=0)
    other = parse_logged_policy("icl:tiny", numbers, with_family)
    assert other.policy.schema.contents.seen == ENERGY.spaces.seen("mdp")
    assert other.demonstrations == 0
    with pytest.raises(ValueError, match="its name is empty"):
        parse_logged_policy("icl:", logs)


@pytest.mark.slow
def test_the_command_plans_for_a_folder_of_models(tmp_path):
    """As a user with logs and estimated models does."""
    task = ENERGY.model(ENERGY.parameters(jax.random.key(0), 4, split="train"), "mdp")
    folder = tmp_path / "models"
    folder.mkdir()
    for i in range(4):
        save_npz(take_tasks(task, jnp.array(i)), folder / f"{i}.npz")
    write_logs(named_logs(episodes=20), tmp_path / "logs.csv")
    words = ["ope", str(tmp_path / "logs.csv"), "--policy", "bayes-adaptive", "--json"]
    result = CliRunner().invoke(app, [*words, "--family", str(folder)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["policy"] == "bayes-adaptive" and "wpdis" in report["estimators"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "by `--family`" in result.output
    result = CliRunner().invoke(app, [*words, "--setting", "mdp"])
    assert result.exit_code == 2 and "pass `--family`, too" in result.output


@pytest.mark.slow
def test_the_plan_of_a_hidden_model_follows_logged_actions(tmp_path):
    """The visible values of its file are named like the logs' observations."""
    family = GarnetFamily(states=4)
    params = family.parameters(jax.random.key(3), 3, split="train")
    models = family.model(params, "mdp")
    save_npz(
        hidden_model(models, np.full(3, 1 / 3)),
        tmp_path / "model.npz",
        states=["d", "c", "b", "a"],
    )
    words = f"solve --model {tmp_path}/model.npz --horizon 4 --out {tmp_path}/plan"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    one = take_tasks(models, jnp.arange(1))
    logs = simulate_logs(
        jax.random.key(1),
        one,
        uniform_random(one, 4),
        horizon=4,
        episodes=20,
        observations=["d", "c", "b", "a"],
    )
    swapped = dataclasses.replace(
        logs,
        observations=tuple("abcd"),
        observation=np.where(logs.observation < 0, -1, 3 - logs.observation),
    )
    found = parse_logged_policy(str(tmp_path / "plan"), swapped)
    chances = found.probabilities_along(swapped)
    plan = load_solution(tmp_path / "plan")
    moves, first = np.asarray(models.transition), np.asarray(models.initial)
    for i in range(logs.episodes):
        weight = np.ones(3)
        for t in range(int(logs.length[i])):
            s = logs.observation[i, t]
            if t:
                before, done = logs.observation[i, t - 1], logs.action[i, t - 1]
                weight = weight * moves[:, before, done, s]
            else:
                weight = weight * first[:, s]
            weight = weight / weight.sum()
            at = jnp.full(1, s, jnp.int32), jnp.asarray(weight)[None]
            assert chances[i, t].argmax() == int(plan.action(t, at)[0])
