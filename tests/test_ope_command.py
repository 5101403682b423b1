"""Policies along logged histories, and `sdm ope`."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from logged_worlds import drawn_logs, random_world
from random_models import random_pomdp
from typer.testing import CliRunner
from untrained_run import untrained_run

from sdm.cli import app
from sdm.data.logs import NOTHING
from sdm.data.logs.simulate import simulate_logs
from sdm.data.logs.write import write_logs
from sdm.data.off_policy.config import OffPolicyConfig
from sdm.data.off_policy.evaluate import evaluate_policy
from sdm.data.off_policy.logged_policy import (
    PolicyOptions,
    TablePolicy,
    parse_logged_policy,
)
from sdm.llm.episode import Episode, render_prompt
from sdm.llm.scoring import encode
from sdm.solvers_jax import MDP, EnergyFamily, load_solution, save_npz, solve
from sdm.tasks.models import states_observed
from sdm.tasks.policy import uniform_random
from sdm.tasks.simulation import batch_of_one


def run(*words):
    return CliRunner().invoke(app, ["ope", *map(str, words)])


@pytest.fixture(scope="module")
def world():
    return random_world(0, ends=True)


@pytest.fixture(scope="module")
def logs(world):
    return drawn_logs(world, 0, 120)


@pytest.fixture
def saved(tmp_path, logs, world):
    write_logs(logs, tmp_path / "logs.parquet")
    np.savez(tmp_path / "policy.npz", probabilities=world.policy)
    return tmp_path


def test_named_policies(logs):
    random = parse_logged_policy("random", logs)
    assert (random.table == 0.5).all()
    assert parse_logged_policy("always-1", logs).table[0, 0].tolist() == [0.0, 1.0]
    counts = np.zeros((3, 2))
    for i, t in zip(*np.nonzero(logs.action != NOTHING), strict=True):
        counts[logs.observation[i, t], logs.action[i, t]] += 1
    counts[2] = 1  # the end, where nobody acts
    own = parse_logged_policy("behavior", logs).table[0]
    assert own == pytest.approx(counts / counts.sum(-1, keepdims=True))
    with pytest.raises(ValueError, match="choose from always-0, always-1"):
        parse_logged_policy("always-2", logs)
    with pytest.raises(ValueError, match=r"`best`: must be .*`random`, .*or the"):
        parse_logged_policy("best", logs)


def test_tables_are_put_in_the_order_of_the_logs(tmp_path, logs, world):
    named = dataclasses.replace(
        logs, observations=("low", "high", "end"), actions=("wait", "treat")
    )
    order, swap = [2, 0, 1], [1, 0]
    extra = np.concatenate([world.policy[:, order][:, :, swap]] * 2, 1)
    np.savez(
        tmp_path / "p.npz",
        probabilities=extra,
        observations=["end", "low", "high", "x", "y", "z"],
        actions=["treat", "wait"],
    )
    found = parse_logged_policy(str(tmp_path / "p.npz"), named)
    assert (found.table == world.policy).all()
    np.save(tmp_path / "one.npy", world.policy[0])
    found = parse_logged_policy(str(tmp_path / "one.npy"), named)
    assert (found.table == world.policy[:1]).all()
    np.savez(tmp_path / "few.npz", probabilities=world.policy, observations=list("abc"))
    with pytest.raises(ValueError, match="no row for the observation `low`"):
        parse_logged_policy(str(tmp_path / "few.npz"), named)
    np.savez(
        tmp_path / "more.npz", probabilities=world.policy, actions=["wait", "operate"]
    )
    with pytest.raises(ValueError, match="takes the action `operate` after `low`"):
        parse_logged_policy(str(tmp_path / "more.npz"), named)


def test_the_plan_of_a_solved_mdp_is_evaluated(tmp_path, world, logs):
    model = MDP(*map(jnp.asarray, (world.transition, world.reward, world.initial)), 0.9)
    save_npz(model, tmp_path / "model.npz")
    words = f"solve --model {tmp_path}/model.npz --horizon 3 --out {tmp_path}/plan"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    found = parse_logged_policy(str(tmp_path / "plan"), logs)
    plan = np.asarray(solve(model, horizon=3).policy)
    assert (found.table == np.eye(2)[plan]).all()


def belief_actions(model, solution, seen, action):
    """The plan's actions along one history, by Bayes' rule with loops."""
    first = np.asarray(model.initial_observation)
    moves, shown = np.asarray(model.transition), np.asarray(model.observation)
    belief = np.asarray(model.initial) * first[:, seen[0]]
    chosen = []
    for t in range(len(action)):
        belief = belief / belief.sum()
        chosen.append(int(solution.action(t, jnp.asarray(belief[None]))[0]))
        if t + 1 < len(action):
            a = action[t]
            after = np.zeros_like(belief)
            for s, chance in enumerate(belief):
                after += chance * moves[s, a] * shown[a, :, seen[t + 1]]
            belief = after
    return chosen


@pytest.mark.slow
def test_the_plan_of_a_pomdp_follows_logged_actions(tmp_path):
    model = random_pomdp(0)
    file = tmp_path / "model.npz"
    save_npz(model, file)
    words = f"solve --model {file} --horizon 2 --method exact --out {tmp_path}/plan"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    batch = batch_of_one(model)
    behavior = uniform_random(states_observed(batch), 2)
    logs = simulate_logs(jax.random.key(0), batch, behavior, horizon=2, episodes=16)
    policy = parse_logged_policy(str(tmp_path / "plan"), logs)
    assert policy.table is None
    solution = load_solution(tmp_path / "plan")
    taken = policy.probabilities_along(logs).argmax(-1)
    for i in range(logs.episodes):
        expected = belief_actions(model, solution, logs.observation[i], logs.action[i])
        assert taken[i].tolist() == expected
    assert set(taken[:, 1]) == {0, 1}  # what it does depends on the history
    found = evaluate_policy(logs, policy, OffPolicyConfig(resamples=40))
    assert "model" not in found and "fqe" in found
    file.write_bytes(b"changed")
    with pytest.raises(ValueError, match="has changed since it was solved"):
        parse_logged_policy(str(tmp_path / "plan"), logs)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run of `tiny` with random weights, and logs of its tasks."""
    family = EnergyFamily()
    folder = tmp_path_factory.mktemp("run")
    untrained_run(folder, family, "mdp", 3, support=1)
    task = family.model(family.parameters(jax.random.key(0), 2, split="test"), "mdp")
    behavior = uniform_random(task, 3)
    made = simulate_logs(jax.random.key(1), task, behavior, horizon=3, episodes=4)
    short = made.action.copy()
    short[1, 2] = NOTHING  # an episode of two decisions
    return folder, dataclasses.replace(made, action=short)


def test_a_language_model_is_evaluated_along_logged_histories(tuned):
    """The probabilities are those of the candidates in the text of each history."""
    folder, logs = tuned
    options = PolicyOptions(temperature=2.0)
    policy = parse_logged_policy(str(folder), logs, options)
    found = policy.probabilities_along(logs)
    inner, names = policy.policy, len(logs.actions)
    for i in (1, 4):
        other = 0 if logs.task[i] == 0 else 5  # the first other episode of the task
        for t in range(int(logs.length[i])):
            shown = episode(logs, other, int(logs.length[other]), 0)
            text = render_prompt(inner.schema, [shown], episode(logs, i, t, 1))
            whole = [
                encode(inner.tokenizer, [text + inner.schema.answer(a)])[0]
                for a in range(names)
            ]
            start = encode(inner.tokenizer, [text])[0]
            assert all(ids[: len(start)] == start for ids in whole)
            assert {len(ids) - len(start) for ids in whole} == {1}
            with torch.no_grad():
                logits = inner.begin.args[0](torch.tensor([start])).logits[0, -1]
            chosen = logits.log_softmax(-1)[[ids[-1] for ids in whole]] / 2.0
            # Single precision, in batches of other lengths.
            assert found[i, t] == pytest.approx(chosen.softmax(-1).numpy(), abs=1e-5)
    greedy = parse_logged_policy(str(folder), logs).probabilities_along(logs)
    acted = logs.action != NOTHING
    assert (greedy.argmax(-1) == found.argmax(-1))[acted].all()
    assert (greedy[acted].max(-1) == 1).all()
    values = evaluate_policy(logs, policy, OffPolicyConfig(resamples=40))
    assert "model" not in values
    with pytest.raises(ValueError, match="must have more than 4 episodes"):
        few = PolicyOptions(demonstrations=4)
        parse_logged_policy(str(folder), logs, few).probabilities_along(logs)
    strange = dataclasses.replace(logs, observations=(*logs.observations[:-1], "ill"))
    with pytest.raises(ValueError, match="has no observation `ill`"):
        parse_logged_policy(str(folder), strange)


def episode(logs, i, decisions, more):
    return Episode(
        tuple(logs.observation[i, : decisions + more].tolist()),
        tuple(logs.action[i, :decisions].tolist()),
        tuple(logs.reward[i, :decisions].tolist()),
    )


def test_the_command_reports_what_the_library_computes(saved, logs, world):
    words = (saved / "logs.parquet", "--policy", saved / "policy.npz", "--json")
    more = ("--discount", 0.9, "--against", "random", "--confounding", 2, "--seed", 3)
    result = run(*words, *more, "--resamples", 60, "--out", saved / "o.json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert json.loads((saved / "o.json").read_text()) == found
    expected = evaluate_policy(
        logs,
        TablePolicy(world.policy),
        OffPolicyConfig(discount=0.9, resamples=60),
        seed=3,
    )
    for name, each in expected.items():
        assert found["estimators"][name] == pytest.approx(each.row()), name
    assert found["behavior_policy"] == "logged" and found["episodes"] == 120
    assert found["confounding"]["bounds"][0]["factor"] == 2.0
    assert set(found["difference"]) == set(expected)
    assert run(*words, "--out", saved / "o.json").exit_code == 2


def test_the_command_prints_tables_and_warnings(saved):
    few = ("--estimator", "wpdis", "--resamples", 40)
    result = run("--logs", saved / "logs.parquet", "--policy", "always-0", *few)
    assert result.exit_code == 0, result.stderr
    assert "wpdis" in result.stdout and "always-0" in result.stdout
    assert "effective sample size" in result.stderr


def test_a_plan_that_was_learned_from_the_same_logs_is_named(saved, logs):
    """From the estimated model to its plan, and to the value of the plan."""
    path, runner = saved / "logs.parquet", CliRunner()
    for words in (
        f"estimate {path} --out {saved}/model",
        f"solve --model {saved}/model/model.npz --horizon 3 --out {saved}/plan",
    ):
        assert runner.invoke(app, words.split()).exit_code == 0
    options = ("--policy", saved / "plan", "--resamples", 40, "--json")
    result = run(path, *options)
    assert result.exit_code == 0, result.stderr
    assert "was made from these very logs" in result.stderr
    found = json.loads(result.stdout)
    with np.load(saved / "model" / "model.npz") as file:
        states = file["state_names"].tolist()
    plan = np.asarray(load_solution(saved / "plan").policy)
    rows = [states.index(name) for name in logs.observations if name in states]
    table = np.eye(2)[plan[:, rows]]
    expected = evaluate_policy(logs, TablePolicy(table), OffPolicyConfig(resamples=40))
    assert found["estimators"]["fqe"]["value"] == expected["fqe"].values.value[0]
    planned = runner.invoke(app, ["plan", str(path), "--out", str(saved / "made")])
    assert planned.exit_code == 0, planned.output
    for made in (saved / "made", saved / "made" / "policy.npz"):
        result = run(path, "--policy", made, "--resamples", 40)
        assert "was made from these very logs" in result.stderr
    write_logs(logs.select(np.arange(60)), saved / "other.parquet")
    assert "very logs" not in run(saved / "other.parquet", *options).stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error: logs: must be given once"),
        (("no.csv",), "error: logs `no.csv`: no such file"),
        (("LOGS", "--discount", "2"), "error: discount = 2.0"),
        (("LOGS", "--estimator", "best"), "error: estimator: must be one of"),
        (("LOGS", "--confounding", "0.5"), "error: confounding: Λ must be at least 1"),
        (("LOGS", "--temperature", "-1"), "error: temperature = -1.0"),
    ],
)
def test_wrong_calls_are_named(saved, words, message):
    path = str(saved / "logs.parquet")
    result = run(*(path if w == "LOGS" else w for w in words), "--policy", "random")
    assert result.exit_code == 2
    assert message in result.stderr
