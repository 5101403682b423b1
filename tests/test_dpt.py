"""Decision-pretrained transformers: what they read, what they learn, what they are."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import SINGLE

from sdm.data.benchmark import EvaluationConfig, make_benchmark
from sdm.data.generation import write_oracle_dataset
from sdm.data.request import OracleConfig
from sdm.data.shards import read_manifest, read_shards
from sdm.data.solved_tasks import sample_tasks, solve_sampled
from sdm.evaluation.evaluate import check_policy, evaluate, evaluate_untrained
from sdm.policies.dpt import (
    DPT,
    DPTShape,
    HistoryPolicy,
    Transitions,
    one_after_another,
    table_policy,
    tokens_of,
    transitions_of,
)
from sdm.policies.dpt_checkpoint import restore, save_state
from sdm.policies.dpt_config import DPTConfig
from sdm.policies.dpt_samples import (
    make_pool,
    random_transitions,
    sample,
    shape_for,
)
from sdm.policies.dpt_training import Learner, loss_of, train_dpt
from sdm.policies.spec import ActingOptions, parse_policy
from sdm.solvers_jax import DarkroomFamily, EnergyFamily
from sdm.solvers_jax.backward_induction import backward_induction
from sdm.storage.files import StorageError
from sdm.tasks.rollout import rollout, rollout_on_host, task_keys
from sdm.tasks.streams import Stream, stream_key

# Compiled: operation by operation, flax takes ten times as long.
INIT = jax.jit(lambda shape, key, x: DPT(shape).init(key, x), static_argnums=0)
APPLY = jax.jit(lambda shape, params, x: DPT(shape).apply(params, x), static_argnums=0)
SHAPE = DPTShape((3,), actions=2, stages=4, length=6, layers=2, width=8, heads=2)
FAMILY = EnergyFamily(max_energy=3)


def write(folder, family=FAMILY, horizon=4, kind="mdp", tasks=6, episodes=4):
    config = OracleConfig(family, horizon, tasks, episodes, kind=kind)
    write_oracle_dataset(config, folder)
    return folder


@pytest.fixture(scope="module", params=["mdp", "pomdp"])
def data(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / request.param
    return write(folder, kind=request.param)


def pool_of(data):
    manifest = read_manifest(data)
    return make_pool(manifest, read_shards(data), contexts="transitions"), manifest


def test_tokens_are_the_query_then_one_hot_transitions():
    context = Transitions(
        jnp.array([2]), jnp.array([1]), jnp.array([-1]), jnp.array([0.5])
    )
    tokens = tokens_of(SHAPE, jnp.int32(0), jnp.int32(3), context)
    # s (3), a (2), s' (3), r, stage of the query (4)
    query = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    shown = [0, 0, 1, 0, 1, 0, 0, 0, 0.5, 0, 0, 0, 0]
    np.testing.assert_array_equal(tokens, [query, shown])


def test_each_component_of_an_observation_is_one_hot():
    shape = DPTShape((3, 3), actions=2, stages=0, length=1)
    context = Transitions(
        jnp.array([5]), jnp.array([0]), jnp.array([-1]), jnp.array([1.0])
    )
    tokens = tokens_of(shape, jnp.int32(6), jnp.int32(0), context)
    nothing = [0] * 6
    assert tokens.shape[-1] == shape.features
    np.testing.assert_array_equal(tokens[0], [0, 0, 1, 1, 0, 0, 0, 0, *nothing, 0])
    np.testing.assert_array_equal(tokens[1], [0, 1, 0, 0, 0, 1, 1, 0, *nothing, 1])


def test_a_transition_ends_in_what_was_seen_next(data):
    pool, made = pool_of(data)
    played = jax.tree.map(lambda x: x[:2], pool.played)
    joined = one_after_another(transitions_of(played))
    first = np.asarray(played.observation[0])
    np.testing.assert_array_equal(joined.seen[0], first.ravel())
    ends = np.concatenate([first[:, 1:], np.full((len(first), 1), -1)], axis=1)
    np.testing.assert_array_equal(joined.following[0], ends.ravel())
    np.testing.assert_array_equal(joined.reward[0], np.ravel(played.reward[0]))
    if not made["observes_reward"]:
        assert not joined.reward.any()


@pytest.mark.slow
def test_what_comes_later_changes_no_earlier_answer():
    features = jax.random.normal(jax.random.key(0), (2, 7, 13), jnp.float32)
    params = INIT(SHAPE, jax.random.key(1), features)
    whole = APPLY(SHAPE, params, features)
    for length in (2, 5):
        begun = APPLY(SHAPE, params, features[:, :length])
        # Rounding of single precision in another order of summation.
        np.testing.assert_allclose(begun, whole[:, :length], atol=1e-5)
    moved = APPLY(SHAPE, params, features.at[:, 4].add(1))
    assert (jnp.abs(moved - whole)[:, 4:] > 1e-6).all()


def test_the_order_of_transitions_is_seen():
    features = jax.random.normal(jax.random.key(0), (1, 7, 13), jnp.float32)
    params = INIT(SHAPE, jax.random.key(1), features)
    other = features[:, jnp.array([0, 2, 1, 3, 4, 5, 6])]
    last = [APPLY(SHAPE, params, x)[:, -1] for x in (features, other)]
    assert jnp.abs(last[0] - last[1]).max() > 1e-6


@pytest.mark.slow
def test_seed_size_and_schedule_are_those_of_the_configuration(data):
    pool, made = pool_of(data)

    def begun(**options):
        config = DPTConfig(str(data), steps=2, batch_size=4, **options)
        return Learner(config, shape_for(config, made), pool)

    def weights(learner):
        leaves = jax.tree.leaves(learner.state["params"])
        return np.concatenate([np.ravel(x) for x in leaves])

    assert not np.array_equal(weights(begun()), weights(begun(seed=1)))
    sizes = {weights(begun(**o)).size for o in ({}, {"layers": 1}, {"width": 16})}
    assert len(sizes) == 3


def test_the_network_is_the_originals():
    shape, tokens = DPTShape((10,), 3, 0, 40), jnp.zeros((1, 2, 24), jnp.float32)
    made = jax.eval_shape(DPT(shape).init, jax.random.key(0), tokens)
    params = made["params"]
    count = sum(x.size for x in jax.tree.leaves(params))
    block = 12 * 32 * 32 + 13 * 32  # GPT-2's: weights and biases of one of width 32
    assert count == 4 * block + (24 + 1) * 32 + 41 * 32 + 2 * 32 + 33 * 3
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("contexts", ["trajectories", "transitions"])
def test_a_sample_asks_for_what_the_oracle_does(data, contexts):
    pool, made = pool_of(data)
    config = DPTConfig(str(data), contexts=contexts, batch_size=64)
    shape = shape_for(config, made)
    tokens, wanted, weight = sample(jax.random.key(0), pool, config, shape)
    seen = np.asarray(tokens[:, 0, : shape.symbols].argmax(-1))
    stage = np.asarray(tokens[:, 0, -shape.stages :].argmax(-1))
    assert not tokens[:, 1:, -shape.stages :].any()  # only the query has a stage
    assert (weight[:, 0] == 0).all()
    if made["kind"] == "mdp":
        assert tokens.shape[1] == 1 + 2 * 4 and (weight[:, 1:] == 1).all()
        # p decides which of the tasks it is: every label is some task's optimum.
        optima = np.asarray(pool.optimal)[:, stage, seen]
        assert (optima == np.asarray(wanted)).any(0).all()
        assert len({*zip(seen.tolist(), stage.tolist(), strict=True)}) > 12
    else:
        assert tokens.shape[1] == 1 + 3 * 4
        np.testing.assert_array_equal(weight.sum(1), 2 * 4 + stage)
        # The query is a moment of the episode that stands at the end of the context.
        own = np.asarray(tokens[:, 9:, : shape.symbols].argmax(-1))
        at = np.arange(64)
        np.testing.assert_array_equal(own[at, stage], seen)
        action = tokens[:, 9:, shape.symbols : shape.symbols + shape.actions]
        np.testing.assert_array_equal(action.argmax(-1)[at, stage], wanted)


@pytest.mark.slow
def test_half_of_the_queries_are_moments_of_the_oracle(tmp_path):
    data = write(tmp_path / "data", DarkroomFamily(size=4), 8, "mdp", 6)
    pool, made = pool_of(data)
    config = DPTConfig(str(data), batch_size=200)
    shape = shape_for(config, made)
    assert (shape.components, shape.stages, shape.length) == ((4, 4), 0, 16)
    tokens, wanted, _ = sample(jax.random.key(0), pool, config, shape)
    row, column = (np.asarray(tokens[:, 0, i : i + 4].argmax(-1)) for i in (0, 4))
    seen = 4 * row + column
    met = set(np.ravel(pool.played.observation).tolist())
    assert set(seen[1::2].tolist()) <= met
    # The oracle stays on a goal most of the time; elsewhere 1 of 16 cells is one.
    stays = np.asarray(wanted) == 0
    assert stays[1::2].mean() > 0.3 > stays[::2].mean()
    assert len(set(seen[::2].tolist())) == 16
    # The goal of the context is that of the answer: the last cell that was stayed in.
    first = tokens[:, 1:, :].reshape(200, 16, -1)
    goal = 4 * first[:, 7, :4].argmax(-1) + first[:, 7, 4:8].argmax(-1)
    np.testing.assert_array_equal(stays, seen == np.asarray(goal))


def test_samples_are_made_of_the_oracles_episodes_only(tmp_path):
    config = OracleConfig(FAMILY, 4, 3, 3, random_trajectories=5)
    write_oracle_dataset(config, tmp_path / "data")
    pool, _ = pool_of(tmp_path / "data")
    assert pool.played.action.shape == (3, 3, 4)
    table = read_shards(tmp_path / "data").to_pandas()
    wanted = np.stack(table[~table["random"]]["action"]).reshape(3, 3, 4)
    np.testing.assert_array_equal(pool.played.action, wanted)
    # Labels are those of each task's own p.
    tasks = sample_tasks(0, config=config, size=3).world
    solved = backward_induction(tasks, horizon=4)
    np.testing.assert_array_equal(pool.optimal, solved.policy)
    # Models of which few fit the memory are solved like those of the dataset.
    manifest = read_manifest(tmp_path / "data") | {"batch": 2}
    rows = read_shards(tmp_path / "data")
    few = make_pool(manifest, rows, contexts="trajectories")
    assert few.world is None
    np.testing.assert_array_equal(few.optimal, solved.policy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (FAMILY, "mdp"),
        (FAMILY, "pomdp"),
        pytest.param(
            EnergyFamily(max_energy=3, models=2), "apomdp", marks=pytest.mark.slow
        ),
        (DarkroomFamily(size=3), "mdp"),
    ],
)
def test_the_models_are_those_of_the_dataset(tmp_path, family, kind):
    data = write(tmp_path / "data", family, 2, kind, 4, 1)
    pool, _ = pool_of(data)
    config = OracleConfig(family, 2, 4, 1, kind=kind)
    world = sample_tasks(0, config=config, size=4).world
    for name in ("transition", "reward", "initial"):
        found, wanted = getattr(pool.world, name), getattr(world, name)
        np.testing.assert_allclose(found, wanted, atol=1e-12)  # rounding


@pytest.mark.slow
def test_what_is_asked_is_not_among_what_is_shown(tmp_path):
    data = write(tmp_path / "data", kind="pomdp", tasks=2, episodes=3)
    pool, made = pool_of(data)
    config = DPTConfig(str(data), batch_size=32)
    shape = shape_for(config, made)
    tokens, _, _ = sample(jax.random.key(1), pool, config, shape)
    names = tokens[..., : shape.symbols].argmax(-1)
    episodes = {
        tuple(map(int, episode)): (number, i)
        for number, task in enumerate(np.asarray(pool.played.observation))
        for i, episode in enumerate(task)
    }
    assert len(episodes) == 6
    for row in np.asarray(names)[:, 1:].reshape(32, 3, 4):
        shown = [episodes[tuple(map(int, e))] for e in row]
        assert len({task for task, _ in shown}) == 1
        assert {episode for _, episode in shown} == {0, 1, 2}


@pytest.mark.slow
def test_random_transitions_are_of_the_task_that_is_asked_about(tmp_path):
    data = write(tmp_path / "data", EnergyFamily(p_min=0.01, p_max=0.99), 2, "mdp", 2)
    pool, made = pool_of(data)
    # In the first task no move succeeds, in the second every one does.
    chance = jnp.arange(2, dtype=jnp.result_type(float))
    pool = dataclasses.replace(pool, world=EnergyFamily().mdp(chance))
    pool = dataclasses.replace(
        pool, optimal=jnp.full_like(pool.optimal, 0).at[1].set(1)
    )
    config = DPTConfig(str(data), contexts="transitions", support=8, batch_size=32)
    shape = shape_for(config, made)
    tokens, wanted, _ = sample(jax.random.key(0), pool, config, shape)
    assert set(np.asarray(wanted).tolist()) == {0, 1}
    names = np.asarray(tokens[:, 1:, : shape.symbols].argmax(-1))
    after = shape.symbols + shape.actions
    following = np.asarray(tokens[:, 1:, after : after + shape.symbols].argmax(-1))
    risen = (following > names).any(1)
    np.testing.assert_array_equal(risen, np.asarray(wanted) == 1)


@pytest.mark.slow
def test_hidden_transitions_show_what_is_seen_and_not_the_state(tmp_path):
    family = EnergyFamily(max_energy=3, q=0.7)
    made = OracleConfig(family, 2, 1, 1, kind="pomdp")
    world = sample_tasks(0, config=made, size=1).world
    # Every action leads to the first state, and from anywhere.
    sunk = jnp.zeros_like(world.transition).at[..., 0].set(1)
    world = dataclasses.replace(world, transition=sunk)
    task = jnp.zeros(1, jnp.int32)
    shown = random_transitions(jax.random.key(0), world, task, 20_000, rewards=False)
    assert not shown.reward.any()
    share = np.mean(np.ravel(shown.following) == 0)
    wanted = float(world.observation[0, 0, 0, 0])
    # Four standard errors of a share of 20,000.
    assert wanted < 1 and share == pytest.approx(wanted, abs=4 * 0.5 / 20_000**0.5)


@pytest.mark.parametrize("kind", ["mdp", "pomdp"])
def test_random_transitions_are_the_models(tmp_path, kind):
    # Symbols are states here, so that moves can be compared in both kinds.
    family = EnergyFamily(max_energy=3, q=1.0)
    made = OracleConfig(family, 2, 6, 1, kind=kind)
    world = sample_tasks(0, config=made, size=6).world
    task = jnp.arange(6, dtype=jnp.int32)
    shown = random_transitions(jax.random.key(2), world, task, 4000, rewards=True)
    for array, size in ((shown.seen, 4), (shown.action, 3)):
        share = np.bincount(np.ravel(array), minlength=size) / array.size
        # Standard error of a share of 24,000 is at most 0.0032.
        np.testing.assert_allclose(share, 1 / size, atol=0.015)
    for i in range(6):
        seen, done, after = (np.asarray(x[i]) for x in shown[:3])
        chance = np.asarray(world.transition[i])[seen, done]
        assert (np.take_along_axis(chance, after[:, None], 1) > 0).all()
        up = (done < 2) & (seen < 3)
        moved = (after[up] == seen[up] + 1).mean()
        p = float(world.transition[i, 0, 0, 1])
        # Four standard errors.
        assert moved == pytest.approx(p, abs=4 * 0.5 / up.sum() ** 0.5)
        wanted = np.asarray(world.reward)[i, seen, done]
        np.testing.assert_allclose(shown.reward[i], wanted, rtol=SINGLE)


@pytest.mark.slow
def test_the_loss_is_the_mean_over_prefixes_by_hand(data):
    pool, made = pool_of(data)
    config = DPTConfig(str(data), batch_size=3)
    shape = shape_for(config, made)
    batch = sample(jax.random.key(3), pool, config, shape)
    params = INIT(shape, jax.random.key(4), batch[0])
    logits = np.asarray(APPLY(shape, params, batch[0]), np.float64)
    chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = count = 0
    for row, action, weight in zip(chance, batch[1], batch[2], strict=True):
        for place, counts in enumerate(np.asarray(weight)):
            total -= counts * np.log(row[place, int(action)])
            count += counts
    assert float(loss_of(params, shape, batch)) == pytest.approx(total / count, 1e-4)


@pytest.mark.slow
def test_it_learns_to_act_on_demonstrations(tmp_path):
    data = write(tmp_path / "data", EnergyFamily(), horizon=6, tasks=200, episodes=5)
    train_dpt(DPTConfig(str(data), steps=500, batch_size=32), tmp_path / "run")
    bed = make_benchmark(EvaluationConfig(EnergyFamily(), 6, 30, 5))
    name = f"dpt:{tmp_path / 'run'}"
    check_policy(name, bed.config)
    (result,) = evaluate([name], bed)
    # The plan for the mean has 1.5 % here: who does not read cannot do better.
    blind = evaluate_untrained("mean-plan", bed).exact_gap.mean
    assert result.exact_gap.mean < 0.7 * blind
    about = json.loads((tmp_path / "run/policy.json").read_text())
    assert about["kind"] == "dpt" and about["report"]["steps"] == 500
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 5 and losses[-1] < losses[0]
    for changes, words in (
        ({"horizon": 5}, "horizon must be that of its training, 6, found 5"),
        ({"kind": "pomdp"}, "kind must be that of its training, mdp"),
        (
            {"observes_reward": False},
            "observes_reward must be that of its training, True",
        ),
        (
            {"family": EnergyFamily(max_energy=4)},
            "other states or actions: .*'max_energy': 9",
        ),
        (
            {"family": DarkroomFamily(size=3)},
            "family must be that of its training, energy",
        ),
        ({"support": 3}, "reads 1 to 2 demonstrations, found 3"),
        ({"support": 0}, "found 0"),
    ):
        options = {"family": EnergyFamily(), "horizon": 6, "tasks": 2, **changes}
        with pytest.raises(StorageError, match=words):
            check_policy(name, EvaluationConfig(**options))


def test_the_table_is_what_the_network_says_of_every_state():
    bed = make_benchmark(EvaluationConfig(FAMILY, 3, 2, 1))
    shape = DPTShape((4,), 3, 3, 6)
    params = INIT(shape, jax.random.key(0), jnp.zeros((1, 2, 15), jnp.float32))
    # Larger weights than those that training begins with, so that answers differ.
    params = jax.tree.map(lambda x: 20 * x, params)
    table = table_policy(shape, params, bed.support, horizon=3).probabilities
    context = one_after_another(transitions_of(bed.support))
    found = set()
    for task in range(2):
        own = Transitions(*(x[task] for x in context))
        for t in range(3):
            for s in range(4):
                tokens = tokens_of(shape, jnp.int32(s), jnp.int32(t), own)
                logits = APPLY(shape, params, tokens[None])[0, -1]
                assert int(table[task, t, s].argmax()) == int(logits.argmax())
                found.add(int(logits.argmax()))
    assert len(found) > 1


@pytest.mark.slow
def test_a_policy_of_hidden_tasks_reads_its_own_episode():
    family = EnergyFamily(max_energy=3, q=0.8)
    config = EvaluationConfig(family, 3, 2, 3, kind="pomdp")
    bed = make_benchmark(config)
    shape = DPTShape((4,), 3, 3, 9)
    params = INIT(shape, jax.random.key(0), jnp.zeros((1, 2, 15), jnp.float32))
    params = jax.tree.map(lambda x: 20 * x, params)
    context = one_after_another(transitions_of(bed.support))
    policy = HistoryPolicy(params, context, shape, 3)
    keys = task_keys(jax.random.key(5), 2)
    played = rollout(keys, bed.tasks.world, policy, horizon=3, episodes=3)
    again = rollout_on_host(keys, bed.tasks.world, policy, horizon=3, episodes=3)
    np.testing.assert_array_equal(played.action, again.action)
    for task in range(2):
        shown = Transitions(*(x[task] for x in context))
        for n in range(3):
            seen, done, paid = (
                np.asarray(getattr(played, f)[task, n])
                for f in ("observation", "action", "reward")
            )
            for t in range(3):
                own = Transitions(
                    jnp.asarray(seen[:t], jnp.int32),
                    jnp.asarray(done[:t], jnp.int32),
                    jnp.asarray(seen[1 : t + 1], jnp.int32),
                    jnp.asarray(paid[:t], jnp.float32),
                )
                whole = Transitions(
                    *(
                        jnp.concatenate([a, b.astype(a.dtype)])
                        for a, b in zip(shown, own, strict=True)
                    )
                )
                tokens = tokens_of(shape, jnp.int32(seen[t]), jnp.int32(t), whole)
                # What comes later changes no answer, so one length does for all.
                padded = jnp.pad(tokens, ((0, 3 - t), (0, 0)))
                logits = APPLY(shape, params, padded[None])[0, len(tokens) - 1]
                assert int(logits.argmax()) == done[t]
    assert len(set(np.ravel(played.action).tolist())) > 1


@pytest.mark.slow
def test_hidden_tasks_and_darkroom_are_learned_from_too(tmp_path):
    for kind, family, contexts in (
        ("apomdp", EnergyFamily(max_energy=2, models=2), "transitions"),
        ("mdp", DarkroomFamily(size=3), "trajectories"),
    ):
        folder, run = tmp_path / kind, tmp_path / f"{kind}-run"
        write(folder, family, horizon=3, kind=kind, tasks=5)
        config = DPTConfig(str(folder), contexts=contexts, steps=2, batch_size=4)
        train_dpt(config, run)
        bed = make_benchmark(EvaluationConfig(family, 3, 2, 2, kind=kind))
        made = parse_policy(f"dpt:{run}").build(bed, ActingOptions())
        assert (made.value is None) == (kind == "apomdp")
        evaluate([f"dpt:{run}"], bed)


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_bytes(tmp_path):
    data = write(tmp_path / "data")
    whole = tmp_path / "whole"
    config = DPTConfig(str(data), steps=400, batch_size=8)
    train_dpt(config, whole)
    code = (
        "import sys, jax; jax.config.update('jax_enable_x64', True)\n"
        "from pathlib import Path\n"
        "from sdm.policies import dpt_training as d\n"
        "from sdm.policies.dpt_config import DPTConfig\n"
        "d.SECONDS_BETWEEN = 0\n"
        f"config = DPTConfig({str(data)!r}, steps=400, batch_size=8)\n"
        "def slow(step, steps):\n"
        "    print(step, flush=True)\n"
        "    if step == 300: sys.stdin.read()\n"
        f"d.train_dpt(config, Path({str(tmp_path / 'run')!r}), progress=slow)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        deadline = time.monotonic() + 300  # a compilation takes seconds
        while child.stdout.readline().strip() != "300":
            assert time.monotonic() < deadline and child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
    assert (tmp_path / "run.partial/checkpoint.safetensors").is_file()
    with pytest.raises(StorageError, match="unfinished run"):
        train_dpt(config, tmp_path / "run")
    other = dataclasses.replace(config, learning_rate=1e-4)
    with pytest.raises(StorageError, match="other options"):
        train_dpt(other, tmp_path / "run", resume=True)
    steps = []
    train_dpt(
        config, tmp_path / "run", resume=True, progress=lambda s, _: steps.append(s)
    )
    assert steps in ([300, 400], [400])  # the last checkpoint may or may not be whole
    same = (tmp_path / "run/policy.safetensors").read_bytes()
    assert same == (whole / "policy.safetensors").read_bytes()
    losses = [(p / "metrics.jsonl").read_text() for p in (whole, tmp_path / "run")]
    assert losses[0] == losses[1]
    assert not (tmp_path / "run/checkpoint.safetensors").exists()


@pytest.mark.slow
def test_folders_that_hold_no_policy_are_refused(tmp_path):
    config = EvaluationConfig(FAMILY, 4, 2, 1)
    with pytest.raises(StorageError, match="holds no policy"):
        check_policy(f"dpt:{tmp_path}", config)
    train_dpt(DPTConfig(str(write(tmp_path / "data")), steps=1), tmp_path / "run")
    with pytest.raises(StorageError, match="a `dpt` policy, expected `cql`"):
        check_policy(f"cql:{tmp_path / 'run'}", config)
    with pytest.raises(ValueError, match="unknown policy `dpt:`"):
        check_policy("dpt:", config)
    arrays = tmp_path / "run/policy.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:-9])
    with pytest.raises(StorageError, match="is incomplete"):
        check_policy(f"dpt:{tmp_path / 'run'}", config)
    arrays.unlink()
    with pytest.raises(StorageError, match="is incomplete"):
        check_policy(f"dpt:{tmp_path / 'run'}", config)


@pytest.mark.slow
def test_goals_that_were_trained_on_are_no_test(tmp_path):
    room = DarkroomFamily(size=3)
    data = write(tmp_path / "data", room, 3, "mdp", 7)
    train_dpt(DPTConfig(str(data), steps=1, batch_size=2), tmp_path / "run")
    name, options = f"dpt:{tmp_path / 'run'}", {"tasks": 2}
    check_policy(name, EvaluationConfig(room, 3, **options))
    for family, words in (
        (
            DarkroomFamily(size=3, split=1),
            "[12] of the 2 test goals are training goals",
        ),
        (
            DarkroomFamily(size=3, pays="arrival"),
            "pays must be stay, as in training, found arrival",
        ),
        (DarkroomFamily(size=4), "other states or actions: .*'size': 3"),
    ):
        with pytest.raises(StorageError, match=words):
            check_policy(name, EvaluationConfig(family, 3, **options))


@pytest.mark.slow
def test_hidden_tasks_are_read_after_as_many_demonstrations_as_in_training(tmp_path):
    data = write(tmp_path / "data", kind="pomdp", tasks=2)
    train_dpt(DPTConfig(str(data), steps=1, batch_size=2), tmp_path / "run")
    one = EvaluationConfig(FAMILY, 4, 2, kind="pomdp", support=1)
    with pytest.raises(StorageError, match="reads 2 demonstrations, found 1"):
        check_policy(f"dpt:{tmp_path / 'run'}", one)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    state = {"params": {"a": np.zeros(2), "b": {"c": np.ones(3)}}, "memory": {}}
    save_state(state, tmp_path / "state")
    found = restore(state, tmp_path / "state")
    np.testing.assert_array_equal(found["params"]["b"]["c"], 1)
    for other in (
        {"params": {"a": np.zeros(2), "d": {"c": np.ones(3)}}, "memory": {}},
        {"params": {"a": np.zeros(2), "b": {"c": np.ones(4)}}, "memory": {}},
    ):
        with pytest.raises(StorageError, match="a checkpoint of another network"):
            restore(other, tmp_path / "state")
    (tmp_path / "state").write_bytes(b"half")
    with pytest.raises(StorageError, match="is damaged"):
        restore(state, tmp_path / "state")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps = 0"),
        ({"weight_decay": -1.0}, "weight_decay = -1"),
        ({"width": 30, "heads": 4}, "width = 30: must be a multiple of heads = 4"),
        ({"learning_rate": 0.0}, "learning_rate = 0"),
        ({"support": 4}, "4 demonstrations and a query need 5"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        config = DPTConfig(str(write(tmp_path / "data")), **changes)
        train_dpt(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    data = write(tmp_path / "data")
    monkeypatch.setattr(
        "sdm.policies.dpt_training.loss_of",
        lambda params, shape, batch: jnp.sum(jax.tree.leaves(params)[0]) * jnp.nan,
    )
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        train_dpt(DPTConfig(str(data), steps=2), tmp_path / "run")


def test_labels_are_what_the_oracle_does(data):
    pool, made = pool_of(data)
    config = OracleConfig(FAMILY, 4, 6, 4, kind=made["kind"])
    tasks = sample_tasks(0, config=config, size=6)
    found, oracle = solve_sampled(tasks.model, config)
    if made["kind"] == "mdp":
        np.testing.assert_array_equal(pool.optimal, found.q.argmax(-1))
    else:
        assert pool.optimal is None
        keys = task_keys(stream_key(0, Stream.TRAIN_EPISODES), 6)
        played = rollout(keys, tasks.world, oracle, horizon=4, episodes=4)
        np.testing.assert_array_equal(pool.played.action, played.action)
