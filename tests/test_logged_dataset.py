"""Datasets of logged episodes: which are the best, and how they look in estimates."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from training_support import QUIET
from typer.testing import CliRunner

from sdm.cli import app
from sdm.data.estimation.files import digest_of, plain_name
from sdm.data.logged_dataset import (
    LoggedDatasetConfig,
    LoggedEpisodes,
    best_of_tasks,
    write_logged_dataset,
)
from sdm.data.logged_episodes import training_episodes
from sdm.data.logs import NOTHING, Logs, LogsError, read_logs
from sdm.data.logs.write import write_logs
from sdm.data.off_policy.learned_from import learned_from
from sdm.data.shards import NO_ACTION, read_manifest, read_shards
from sdm.llm.recipes import recipe
from sdm.llm.training_data import read_training_data
from sdm.solvers_jax import solve
from sdm.tasks import load_family

pytestmark = QUIET
GAMMA, TASKS, EPISODES, LONGEST = 0.9, 5, 14, 4
NAMES = ("warm", "cold", "hot")
run = CliRunner().invoke


def made_logs(*, ends_pay=True):
    """Random episodes of 2 to 4 decisions; shorter ones and some others ended."""
    random = np.random.default_rng(0)
    count = TASKS * EPISODES
    length = random.integers(2, LONGEST + 1, count)
    done = (length < LONGEST) | (np.arange(count) % 3 == 0)
    done[::EPISODES], length[::EPISODES] = False, 3  # cut off
    inside = np.arange(LONGEST) < length[:, None]
    reward = random.integers(-2, 3, inside.shape).astype(float)
    last = np.arange(count), length - 1
    reward[last] = np.where(done, random.integers(0, 2, count) * ends_pay, reward[last])
    seen = random.integers(0, len(NAMES), (count, LONGEST + 1))
    after = np.arange(LONGEST + 1) < (length + ~done)[:, None]
    return Logs(
        observation=np.where(after, seen, NOTHING),
        action=np.where(inside, random.integers(0, 2, inside.shape), NOTHING),
        reward=np.where(inside, reward, 0.0),
        done=done,
        task=np.repeat(np.arange(TASKS), EPISODES),
        probability=None,
        observations=NAMES,
        actions=("rest", "treat"),
        tasks=tuple(f"ward {i}" for i in range(TASKS)),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Logs, and their estimates with and without outcomes."""
    folder = tmp_path_factory.mktemp("logs")
    write_logs(made_logs(), folder / "logs.parquet")
    words = ["estimate", str(folder / "logs.parquet"), "--discount", str(GAMMA)]
    for name, more in (("sites", ()), ("plain", ("--no-outcomes",))):
        done = run(app, [*words, *more, "--out", str(folder / name)])
        assert done.exit_code == 0, done.output
    return folder


def episodes_in(saved, name="sites", **options):
    family = load_family(str(saved / name), {})
    logs = read_logs(saved / "logs.parquet")
    with pytest.warns(UserWarning, match="left out: cut off before"):
        found, params = training_episodes(logs, family, **options)
    return logs, family, found, params


@pytest.mark.parametrize("horizon", [None, 3, LONGEST + 2])
@pytest.mark.parametrize("name", ["sites", "plain"])
@pytest.mark.filterwarnings("ignore:.*left out")
def test_whole_episodes_are_those_of_the_logs_one_by_one(saved, name, horizon):
    family = load_family(str(saved / name), {})
    logs = read_logs(saved / "logs.parquet")
    found, _ = training_episodes(logs, family, horizon=horizon)
    stages = horizon or LONGEST
    states = family.spaces.state[0].values
    assert (states[-1], "end with 1" in states) == ("end", name == "sites")
    training = family.task_names("train")
    assert len(training) == 4 and len(family.task_names("test")) == 1
    expected = {task: [] for task in training}
    for n in range(logs.episodes):
        task = f"{logs.task[n]}-ward-{logs.task[n]}"
        length = logs.length[n]
        if task not in expected or not (logs.done[n] or length >= stages):
            continue
        rows = []
        for t in range(length):
            place = states.index(logs.observations[logs.observation[n, t]])
            rows.append((place, logs.action[n, t], logs.reward[n, t]))
        if name == "sites" and logs.done[n]:
            paid = logs.reward[n, length - 1]
            rows.append((states.index(f"end with {paid:g}"), 0, 0.0))
        rows += [(states.index("end"), 0, 0.0)] * stages
        expected[task].append((*rows[:stages], (min(length, stages),)))
    assert sum(map(len, expected.values())) == len(found.task)
    for i, task in enumerate(training):
        mine = np.flatnonzero(found.task == i)
        columns = (found.observation, found.action, found.reward)
        together = [
            (*zip(*(x[n] for x in columns), strict=True), (found.length[n],))
            for n in mine
        ]
        assert together == expected[task]


def test_returns_are_those_of_the_logs_whatever_the_end_pays(saved):
    logs, family, found, _ = episodes_in(saved)
    place = {int(name[0]): i for i, name in enumerate(family.task_names("train"))}
    whole = logs.done | (logs.length == LONGEST)
    for task, i in place.items():
        mine = logs.reward[whole & (logs.task == task)].sum(1)
        np.testing.assert_array_equal(found.reward[found.task == i].sum(1), mine)


def test_an_episode_without_a_first_observation_is_left_out(saved):
    family, logs = load_family(str(saved / "sites"), {}), made_logs()
    training = int(family.task_names("train")[0][0])
    one = np.flatnonzero((logs.task == training) & logs.done)[0]
    blind = logs.observation.copy()
    blind[one, 0] = NOTHING
    some = dataclasses.replace(logs, observation=blind)
    with (
        pytest.warns(UserWarning, match="1 of the 56 episodes .* first decision"),
        pytest.warns(UserWarning, match="cut off before"),
    ):
        found, _ = training_episodes(some, family)
    assert len(found.task) == len(episodes_in(saved)[2].task) - 1


def test_logs_of_some_tasks_find_their_models(saved):
    logs, family, found, _ = episodes_in(saved)
    name = family.task_names("train")[1]
    one = logs.select(logs.task == int(name[0]))
    one = dataclasses.replace(
        one, task=np.zeros(one.episodes, int), tasks=(f"ward {name[0]}",)
    )
    with pytest.warns(UserWarning, match="left out: cut off"):
        mine, params = training_episodes(one, family)
    assert set(mine.task) == {1} and len(params["file"]) == 2
    np.testing.assert_array_equal(mine.action, found.action[found.task == 1])
    last = int(family.task_names("test")[0][0])
    unused = dataclasses.replace(one, tasks=(f"ward {last}",))
    with pytest.raises(LogsError, match="all tasks of the logs are test tasks"):
        training_episodes(unused, family)


def test_the_best_are_the_first_of_each_task_sorted_by_score():
    random = np.random.default_rng(1)
    task = np.sort(random.integers(0, 6, 200))
    score = random.integers(0, 9, 200).astype(float)
    for share in (0.01, 0.3, 1.0):
        kept = best_of_tasks(task, score, share)
        for i in range(6):
            mine, chosen = score[task == i], kept[task == i]
            count = max(1, round(share * len(mine)))
            assert chosen.sum() == count
            assert sorted(mine[chosen]) == sorted(mine)[-count:]


def test_equal_scores_are_in_random_order():
    task, score = np.zeros(40, int), np.zeros(40)
    one, two = (best_of_tasks(task, score, 0.5, seed=seed) for seed in (0, 1))
    assert (one != two).any() and (np.diff(np.flatnonzero(one)) > 1).any()
    np.testing.assert_array_equal(one, best_of_tasks(task, score, 0.5, seed=0))


def written(saved, out, score, name="sites", **options):
    _, family, found, params = episodes_in(saved, name)
    config = LoggedDatasetConfig(best=0.5, score=score)
    report = write_logged_dataset(out, found, family, params, config, **options)
    return family, found, params, report, read_shards(out).to_pydict()


def test_the_best_returns_are_learned_and_the_others_shown(saved, tmp_path):
    _, found, _, report, rows = written(saved, tmp_path / "data", "return")
    gained = (GAMMA ** np.arange(LONGEST) * found.reward).sum(1)
    assert report["episodes"] == len(gained) == len(rows["task"])
    assert report["mean_return"] == pytest.approx(gained.mean())
    best = []
    for i in range(4):
        mine = sorted(gained[found.task == i])
        best += mine[-round(0.5 * len(mine)) :]
        learned = [
            (GAMMA ** np.arange(LONGEST) * reward).sum()
            for task, reward, other in zip(
                rows["task"], rows["reward"], rows["random"], strict=True
            )
            if task == i and not other
        ]
        assert sorted(learned) == pytest.approx(mine[-len(learned) :])
    assert report["best_episodes"] == len(best)
    counts = [round(0.5 * (found.task == i).sum()) for i in range(4)]
    assert report["fewest_best_of_a_task"] == min(counts)
    assert report["mean_return_of_best"] == pytest.approx(np.mean(best))
    states = load_family(str(saved / "sites"), {}).spaces.state[0].values
    for seen, other, action, label in zip(
        *(rows[name] for name in ("observation", "random", "action", "optimal_action")),
        strict=True,
    ):
        decides = [states[each] in NAMES and not other for each in seen]
        assert label == list(np.where(decides, action, NO_ACTION))
    for i in range(4):
        mine = [x for task, x in zip(rows["task"], rows["episode"], strict=True)]
        mine = [x for x, task in zip(mine, rows["task"], strict=True) if task == i]
        assert mine == list(range(len(mine)))


@pytest.mark.parametrize(("name", "beyond"), [("sites", 1), ("plain", 0)])
def test_regrets_are_those_of_the_optimal_values_of_the_estimates(
    saved, tmp_path, name, beyond
):
    family, _, params, _, rows = written(saved, tmp_path / "data", "regret", name)
    # With outcomes, one decision more, in which the model pays them.
    solution = solve(family.model(params, "mdp"), horizon=LONGEST + beyond)
    states = family.spaces.state[0].values
    q = np.asarray(solution.q)

    def lost(task, seen, taken):
        decides = [states[s] in NAMES for s in seen]
        here = [q[task, t, s] for t, s in enumerate(seen)]
        total = sum(
            GAMMA**t * (x.max() - x[a])
            for (t, x), a, yes in zip(enumerate(here), taken, decides, strict=True)
            if yes
        )
        return total / sum(decides)

    columns = (rows[name] for name in ("task", "observation", "action", "random"))
    of_rows = [
        (i, lost(i, s, a), other) for i, s, a, other in zip(*columns, strict=True)
    ]
    for task in range(4):
        best = [x for i, x, other in of_rows if i == task and not other]
        others = [x for i, x, other in of_rows if i == task and other]
        assert min(best) >= 0 and max(best) <= min(others) + 1e-9  # rounding


def test_training_texts_ask_the_best_and_show_the_others(saved, tmp_path):
    written(saved, tmp_path / "data", "return")
    table = read_shards(tmp_path / "data").to_pydict()
    texts, ended = {"optimal": set(), "random": set()}, set()
    options = {"texts_per_task": 4, "schema": "words", "held_out": 0.25, "support": 2}
    for show in texts:
        config = recipe(str(tmp_path / "data"), "tiny", demonstrations=show, **options)
        data = read_training_data(config)
        assert len(data.train) == 4 * 3 and len(data.validation) == 4
        for each in data.train:
            texts[show].add((each.task, each.text))
            if show == "random":  # labels of the query only
                assert set(each.wanted[:-LONGEST]) == {None}
                assert each.wanted[-LONGEST] is not None
            else:  # of three episodes; decisions after an end have no labels
                labels = each.wanted or (0,) * 3 * LONGEST
                assert None not in labels[::LONGEST]
                ended.add(None in labels)
    assert texts["optimal"] != texts["random"] and True in ended
    with pytest.raises(ValueError, match="its policy is `the best logged episodes"):
        read_training_data(
            recipe(str(tmp_path / "data"), "tiny", queries="all", **options)
        )
    assert any("treat" in text for _, text in texts["random"])
    assert max(table["task"]) == 3


@pytest.mark.filterwarnings("ignore:.* episodes of training tasks are left out")
def test_the_command_writes_the_dataset_of_its_options(saved, tmp_path):
    words = ["demonstrate", str(saved / "logs.parquet")]
    words += ["--family", str(saved / "sites")]
    out = tmp_path / "shown"
    options = ["--best", "0.5", "--score", "regret", "--json"]
    made = run(app, [*words, *options, "--out", str(out)])
    assert made.exit_code == 0, made.output
    expected = written(saved, tmp_path / "data", "regret")[3]
    found = json.loads(made.stdout)
    assert {name: found[name] for name in expected} == expected
    manifest = read_manifest(out)
    assert manifest["shards"] == read_manifest(tmp_path / "data")["shards"]
    assert manifest["horizon"] == LONGEST and manifest["best"] == 0.5
    assert "not made from these very logs" not in made.stderr
    assert manifest["logs"]["path"] == str(saved / "logs.parquet")
    words[1] = str(saved / "other.parquet")
    write_logs(made_logs(), saved / "other.parquet")
    write_logs(
        made_logs().select(slice(0, -1)), saved / "other.parquet", overwrite=True
    )
    other = run(app, [*words, "--best", "0.01", "--out", str(tmp_path / "few")])
    assert "not made from these very logs" in other.stderr
    assert "best episodes of a task: 1, but" in other.stderr
    again = run(app, [*words, *options, "--out", str(out)])
    assert again.exit_code == 2 and "--overwrite" in again.stderr


def test_names_that_are_numbers_are_those_of_the_models(saved, tmp_path):
    """As in logs whose observations and actions are numbers."""
    logs = made_logs()
    plain = dataclasses.replace(logs, observations=("0", "1", "2"), actions=("0", "1"))
    write_logs(plain, tmp_path / "plain.csv")
    words = ["estimate", str(tmp_path / "plain.csv"), "--out", str(tmp_path / "sites")]
    made = run(app, words)
    assert made.exit_code == 0, made.output
    family = load_family(str(tmp_path / "sites"), {})
    with pytest.warns(UserWarning, match="left out"):
        numbered = training_episodes(read_logs(tmp_path / "plain.csv"), family)[0]
    named = episodes_in(saved)[2]
    np.testing.assert_array_equal(numbered.reward, named.reward)
    np.testing.assert_array_equal(numbered.action, named.action)
    states = family.spaces.state[0].values
    seen = [states[each] for each in numbered.observation[:, 0]]
    both = zip(seen, named.observation[:, 0], strict=True)
    known = load_family(str(saved / "sites"), {}).spaces.state[0].values
    assert all(NAMES[int(one)] == known[other] for one, other in both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 0.0}, "best = 0: must be above 0"),
        ({"best": 1.5}, "best = 1.5"),
        ({"score": "chance"}, "must be one of return, regret"),
        ({"horizon": 0}, "horizon"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LoggedDatasetConfig(**options)


def test_logs_that_the_estimates_are_not_of_are_refused(saved):
    family, logs = load_family(str(saved / "sites"), {}), made_logs()
    other = dataclasses.replace(logs, tasks=tuple(f"clinic {i}" for i in range(TASKS)))
    with pytest.raises(LogsError, match="has no model of task `clinic 0`, found"):
        training_episodes(other, family)
    renamed = dataclasses.replace(logs, observations=("warm", "cold", "boiling"))
    with pytest.raises(LogsError, match="has no observation `boiling` of the logs"):
        training_episodes(renamed, family)
    renamed = dataclasses.replace(logs, actions=("rest", "wait"))
    with pytest.raises(LogsError, match="has no action `wait`"):
        training_episodes(renamed, family)
    renamed = dataclasses.replace(logs, actions=("ja", "nein"))
    with pytest.raises(LogsError, match="has no action `ja`"):
        training_episodes(renamed, family)
    twins = dataclasses.replace(logs, tasks=("a b", "a-b", "c", "d", "e"))
    assert len({plain_name(task) for task in twins.tasks}) == 4
    with pytest.raises(LogsError, match="tasks have no names"):
        training_episodes(logs, load_family("energy", {}))
    endless = dataclasses.replace(logs, done=np.zeros(logs.episodes, bool))
    with pytest.raises(LogsError, match="has 9 decisions, or an end"):
        training_episodes(endless, family, horizon=9)


def test_regret_needs_observed_states(tmp_path):
    family = load_family("energy", {})
    zeros = np.zeros((1, 2), int)
    one = LoggedEpisodes(np.zeros(1, int), zeros, zeros, np.ones((1, 2)), np.full(1, 2))
    params = family.parameters(jax.random.key(0), 1, split="train")
    config = LoggedDatasetConfig(score="regret")
    with pytest.raises(ValueError, match="needs models with observed states"):
        write_logged_dataset(tmp_path / "x", one, family, params, config, kind="pomdp")
    assert not (tmp_path / "x").exists()


def test_models_of_the_same_logs_are_named(saved, tmp_path):
    logs, options = saved / "logs.parquet", {"path": str(saved / "sites")}
    for file, text in (
        ("config.yaml", f"family_config:\n  path: {saved / 'sites'}\nfinetune: {{}}\n"),
        ("policy.json", json.dumps({"tasks": {"family_config": options}})),
    ):
        folder = tmp_path / file.replace(".", "-")
        folder.mkdir()
        (folder / file).write_text(text)
        assert learned_from(str(folder), logs) and learned_from(f"dpt:{folder}", logs)
        (folder / file).write_text(text.replace("sites", "elsewhere"))
        assert not learned_from(str(folder), logs)
    other = saved / "more.parquet"
    write_logs(made_logs().select(slice(0, 40)), other)
    digest = {"path": "moved", "sha256": digest_of(other)}
    written(saved, tmp_path / "data", "return", logs=digest)
    (tmp_path / "config.yaml").write_text(f"finetune:\n  data: {tmp_path / 'data'}\n")
    assert learned_from(str(tmp_path), other) and not learned_from(str(tmp_path), logs)
    for name in ("random", "icl:tiny", "always-0", str(tmp_path / "nothing")):
        assert not learned_from(name, logs)
