"""Readers of logs, their messages with row numbers, and logs of simulated episodes."""

import dataclasses
import gzip
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from sdm.data.generation import write_oracle_dataset
from sdm.data.logs import NOTHING, Logs, LogsError, read_logs
from sdm.data.logs.registry import LogReader, log_readers, register_reader
from sdm.data.logs.simulate import simulate_logs
from sdm.data.logs.summary import describe_logs, returns_of
from sdm.data.logs.write import write_logs
from sdm.data.request import OracleConfig
from sdm.solvers_jax import MDP, POMDP
from sdm.storage.memory import MemoryLimitError
from sdm.tasks.policy import TabularPolicy, deterministic
from sdm.tasks.registry import load_family

HEADER = "episode,step,observation,action,reward,task,done,behavior_probability"
GOOD = (
    "p1,0,low,wait,0.5,north,false,0.5",
    "p1,1,high,treat,1,north,false,0.25",
    "p1,2,low,,,north,,",
    "p2,0,normal,treat,2,south,true,1",
)


def csv_file(folder, *lines, header=HEADER, name="logs.csv"):
    path = folder / name
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def same(left, right):
    for name in left.__dataclass_fields__:
        a, b = getattr(left, name), getattr(right, name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            assert a == b, name
    return True


def expected():
    return Logs(
        observation=np.array([[1, 0, 1], [2, NOTHING, NOTHING]]),
        action=np.array([[1, 0], [0, NOTHING]]),
        reward=np.array([[0.5, 1.0], [2.0, 0.0]]),
        done=np.array([False, True]),
        task=np.array([0, 1]),
        probability=np.array([[0.5, 0.25], [1.0, 1.0]]),
        observations=("high", "low", "normal"),
        actions=("treat", "wait"),
        tasks=("north", "south"),
    )


def test_csv_rows_become_episodes(tmp_path):
    assert same(read_logs(csv_file(tmp_path, *GOOD)), expected())


def test_rows_of_episodes_may_be_interleaved(tmp_path):
    mixed = [GOOD[i] for i in (0, 3, 1, 2)]
    assert same(read_logs(csv_file(tmp_path, *mixed)), expected())


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_written_logs_are_read_again(tmp_path, name):
    write_logs(expected(), tmp_path / name)
    assert same(read_logs(tmp_path / name), expected())


def test_parquet_keeps_names_that_do_not_occur(tmp_path):
    logs = expected().select(np.array([True, False]))
    write_logs(logs, tmp_path / "a.parquet")
    again = read_logs(tmp_path / "a.parquet")
    # Tasks are named by the column, and only those that occur.
    one = dataclasses.replace(logs, task=np.array([0]), tasks=("north",))
    assert same(again, one)


def test_files_may_be_compressed_and_in_a_folder(tmp_path):
    plain = csv_file(tmp_path, *GOOD).read_bytes()
    (tmp_path / "logs.csv").unlink()
    (tmp_path / "logs.csv.gz").write_bytes(gzip.compress(plain))
    assert same(read_logs(tmp_path / "logs.csv.gz"), expected())
    (tmp_path / "logs.csv.gz").unlink()
    csv_file(tmp_path, *GOOD[:3], name="1.csv")
    csv_file(tmp_path, *GOOD[3:], name="2.csv")
    assert same(read_logs(tmp_path), expected())


def test_numbers_ascend_and_equal_numbers_are_one_name(tmp_path):
    rows = ("1,0,10,0.0,1", "1,1,9,1,1", "1,2,10.0,0,1")
    logs = read_logs(csv_file(tmp_path, *rows, header=HEADER[:38]))
    assert logs.observations == ("9", "10") and logs.actions == ("0", "1")
    assert logs.observation[0].tolist() == [1, 0, 1, NOTHING]


def test_declared_names_are_indices(tmp_path):
    path = csv_file(tmp_path, *GOOD)
    logs = read_logs(path, actions=("wait", "treat", "operate"))
    assert logs.actions[2] == "operate" and logs.action[0].tolist() == [0, 1]
    with pytest.raises(LogsError, match=r"declared names in row 3 \(found treat\)"):
        read_logs(path, actions=("wait",))


def change(row, column, value):
    lines = [line.split(",") for line in GOOD]
    lines[row][HEADER.split(",").index(column)] = value
    return [",".join(line) for line in lines]


# The first row after the header is row 2, as in an editor.
PROBLEMS = [
    (change(0, "reward", ""), "`reward` is missing in row 2"),
    (change(1, "reward", "x"), "`reward` is not a number in row 3 (found x)"),
    (change(1, "reward", "inf"), "`reward` is not finite in row 3"),
    (change(2, "reward", "3"), "`reward` without an action in row 4 (found 3.0)"),
    (change(1, "action", ""), "`action` is missing before the last row of its episode"),
    (change(1, "action", "7"), "`action` mixes numbers and text in row 3 (found 7)"),
    (change(3, "action", ""), "an episode has no decision in row 5"),
    (change(1, "observation", ""), "`observation` is missing in row 3"),
    (change(0, "observation", "3"), "`observation` mixes numbers and text in row 2"),
    (change(1, "step", "0"), "`step` is repeated within its episode in row 3"),
    (change(1, "step", "1.5"), "`step` is not a whole number in row 3 (found 1.5)"),
    (change(1, "step", ""), "`step` is missing in row 3"),
    (change(2, "step", "1e12"), "`step` is beyond ±1073741824 in row 4 (found 1000000"),
    (change(2, "step", "3"), "the step before is missing in row 4 (found 3)"),
    (change(3, "step", "4"), "episodes must start at step 0"),
    ([GOOD[i] for i in (1, 0, 2, 3)], "smaller than in an earlier row of its episode in"
     " row 3"),
    (change(0, "episode", ""), "`episode` is missing in row 2"),
    (change(0, "done", "maybe"), "must be true or false, or 1 or 0, in row 2 (foun"),
    (change(0, "done", "true"), "`done` is true before the last decision in row 2"),
    (change(1, "task", "south"), "`task` changes within an episode in rows 3, 4"),
    (change(0, "behavior_probability", "0"), "is 0, but the action was taken, in row"),
    (change(0, "behavior_probability", "1.5"), "between 0 and 1, in row 2 (found 1.5)"),
    (change(0, "behavior_probability", "-1"), "between 0 and 1, in row 2 (found -1.0)"),
    (change(0, "behavior_probability", ""), "`behavior_probability` is missing in row"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "text"), PROBLEMS, ids=[x[1][:30] for x in PROBLEMS])
def test_problems_name_the_row(tmp_path, lines, text):
    with pytest.raises(LogsError) as error:
        read_logs(csv_file(tmp_path, *lines))
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_out_of_order_are_one_problem(tmp_path):
    with pytest.raises(LogsError) as error:
        read_logs(csv_file(tmp_path, *[GOOD[i] for i in (1, 0, 2, 3)]))
    assert str(error.value).count(" in row") == 1


def test_rows_count_empty_lines_and_files(tmp_path):
    lines = [GOOD[0], "", *change(1, "reward", "")[1:]]
    with pytest.raises(LogsError, match="`reward` is missing in row 4"):
        read_logs(csv_file(tmp_path, *lines))
    csv_file(tmp_path, *GOOD[3:], name="a.csv")
    with pytest.raises(LogsError, match=r"missing in row 4 of `logs\.csv`"):
        read_logs(tmp_path)


def test_many_problems_are_counted(tmp_path):
    rows = [f"{i},0,1,1," for i in range(9)]
    with pytest.raises(LogsError, match="missing in rows 2, 3, 4 and 6 more"):
        read_logs(csv_file(tmp_path, *rows, header=HEADER[:38]))


def test_columns_are_checked(tmp_path):
    header = HEADER[:38].replace("reward", "rewrd").replace("step", "time")
    with pytest.raises(LogsError) as error:
        read_logs(csv_file(tmp_path, "1,0,1,1,1", header=header))
    for text in (
        "`step` is missing",
        "unknown column `time`",
        "did you mean `reward`?",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_named(tmp_path, separator):
    lines = [line.replace(",", separator) for line in GOOD]
    path = csv_file(tmp_path, *lines, header=HEADER.replace(",", separator))
    with pytest.raises(LogsError, match=r"one column, .* in it") as error:
        read_logs(path)
    assert error.value.hint == "separate the columns by commas"


def test_rewards_stay_in_the_stated_range(tmp_path):
    path = csv_file(tmp_path, *GOOD)
    assert read_logs(path, reward_min=0.5, reward_max=2.0).episodes == 2
    with pytest.raises(LogsError, match=r"above 1 in row 5 \(found 2.0\)"):
        read_logs(path, reward_max=1.0)
    with pytest.raises(LogsError, match=r"below 0.75 in row 2 \(found 0.5\)"):
        read_logs(path, reward_min=0.75)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "no rows"),
        ("a.csv", HEADER, "no rows"),
        ("a.csv", f"{HEADER}\n1,2\n", "expected 8 cells, found 2 in row 2"),
        ("a.jsonl", "", "no rows"),
        ("a.jsonl", '\n{"episode": 1}\n[1]\n', "row 3"),
        ("a.jsonl", '{"action": 1}\n\n{"action": "x"}\n', "to string in row 3"),
        ("a.parquet", "no", "no valid Parquet file"),
        ("a.txt", "", "unknown format"),
    ],
)
def test_files_that_are_no_logs(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(LogsError, match=message):
        read_logs(tmp_path / name)
    with pytest.raises(LogsError, match="no such file or folder"):
        read_logs(tmp_path / "missing.csv")


def test_continuous_observations_are_refused(tmp_path):
    rows = [f"{i},0,{i / 7 + 0.01:.4f},1,0" for i in range(1100)]
    with pytest.raises(LogsError, match="distinct fractional values"):
        read_logs(csv_file(tmp_path, *rows, header=HEADER[:38]))


def test_columns_of_vectors_are_refused(tmp_path):
    table = pa.table({"episode": [1], "step": [0], "observation": [[1.0, 2.0]],
                      "action": [1], "reward": [0.0]})  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(LogsError, match="`observation` has the type list"):
        read_logs(tmp_path / "a.parquet")


def test_a_column_that_some_json_lines_lack(tmp_path):
    row = {"episode": 1, "step": 0, "observation": 3, "action": 0, "reward": 1}
    lines = [row, {**row, "step": 1, "done": True}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert read_logs(tmp_path / "a.jsonl").done.tolist() == [True]


@pytest.mark.parametrize(("ends", "warned"), [("true", 1), ("false", 0)])
def test_a_limit_that_is_marked_as_an_end_is_warned_of(tmp_path, ends, warned):
    rows = [
        f"p{i},{t},low,wait,1,north,{ends if t else 'false'},1"
        for i in range(20)
        for t in range(2)
    ]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_logs(csv_file(tmp_path, *rows))
    found = [x for x in said if "end of the follow-up" in str(x.message)]
    assert len(found) == warned


def test_ends_are_assumed_with_a_warning(tmp_path):
    rows = ("1,0,1,1,0", "1,1,1,1,0", "2,0,1,1,0")
    with pytest.warns(UserWarning, match="assumed that the 1 episodes shorter than 2"):
        logs = read_logs(csv_file(tmp_path, *rows, header=HEADER[:38]))
    assert logs.done.tolist() == [False, True]


MINARI = {"observations": [3, 1, 3], "actions": [0, 1], "rewards": [0.5, 1.0],
          "terminations": [False, True]}  # fmt: skip


def minari_logs(logs):
    assert logs.observations == ("1", "3")
    assert logs.observation.tolist() == [[1, 0, 1], [0, 1, NOTHING]]
    assert logs.action.tolist() == [[0, 1], [0, NOTHING]]
    assert logs.reward.tolist() == [[0.5, 1.0], [2.0, 0.0]]
    assert logs.done.tolist() == [True, False]


SECOND = {"observations": [1, 3], "actions": [0], "rewards": [2.0],
          "terminations": [False]}  # fmt: skip


def test_minari_in_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text('{"data_format": "hdf5"}')
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "w") as file:
        for i, episode in enumerate((MINARI, SECOND)):
            for name, values in episode.items():
                file[f"episode_{i}/{name}"] = np.array(values)
    minari_logs(read_logs(tmp_path))
    with h5py.File(tmp_path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.zeros((2, 3))
    with pytest.raises(LogsError, match="one number per step, found shape"):
        read_logs(tmp_path)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_minari_in_tables(tmp_path, kind):
    """Minari pads the last row of actions, rewards and ends."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text(f'{{"data_format": "{kind}"}}')
    for i, episode in enumerate((MINARI, SECOND)):
        table = {name: [*x, 0][: len(episode["observations"])] for name, x in
                 episode.items() if name != "terminations"}  # fmt: skip
        table["terminations"] = [*episode["terminations"], False]
        folder = tmp_path / "data" / str(i)
        pyarrow.dataset.write_dataset(pa.table(table), folder, format=kind)
        (folder / "metadata.json").write_text("{}")
    minari_logs(read_logs(tmp_path))


@pytest.mark.slow
def test_datasets_of_solve_are_logs(tmp_path):
    family = load_family("energy")
    config = OracleConfig(family=family, horizon=4, tasks=3, trajectories=2)
    write_oracle_dataset(config, tmp_path / "oracle")
    logs = read_logs(tmp_path / "oracle")
    assert (logs.episodes, logs.horizon, logs.tasks) == (6, 4, ("0", "1", "2"))
    assert logs.task.tolist() == [0, 0, 1, 1, 2, 2]
    assert logs.actions == family.spaces.actions and not logs.done.any()
    assert (logs.observation[:, -1] == NOTHING).all()
    assert ((logs.action == NOTHING).sum(), logs.observations[0]) == (0, "0")


def test_a_reader_is_registered_once():
    mine = log_readers()[0]
    with pytest.raises(ValueError, match="registered already"):
        register_reader(LogReader(mine.name, mine.reads, mine.read))


def chain(tasks=2):
    """State 1 of three pays 1 and leads to the end, state 2."""
    moves = np.zeros((tasks, 3, 2, 3))
    moves[:, 0, :, 1] = 0.5
    moves[:, 0, :, 0] = 0.5
    moves[:, 1:, :, 2] = 1
    reward = np.zeros((tasks, 3, 2))
    reward[:, 1] = [1.0, 2.0]
    start = np.tile([1.0, 0, 0], (tasks, 1))
    return MDP(*map(jnp.asarray, (moves, reward, start)), 1.0)


@pytest.mark.slow
def test_simulated_logs_end_in_absorbing_states():
    policy = TabularPolicy(jnp.full((2, 9, 3, 2), 0.5).at[..., 1, :].set(
        jnp.array([0.25, 0.75])))  # fmt: skip
    logs = simulate_logs(jax.random.key(0), chain(), policy, horizon=9, episodes=200,
                         observations=("start", "middle", "end"))  # fmt: skip
    assert logs.episodes == 400 and logs.task.tolist() == [0] * 200 + [1] * 200
    rows = np.arange(400)
    np.testing.assert_array_equal(logs.done, logs.observation[rows, logs.length] == 2)
    assert 2 not in logs.observation[~logs.done]
    last = logs.length - 1
    paid = logs.reward[rows, last][logs.done]
    np.testing.assert_array_equal(paid, 1 + logs.action[rows, last][logs.done])
    chance = logs.probability[rows, last][logs.done]
    np.testing.assert_array_equal(chance, np.where(paid == 1, 0.25, 0.75))
    # The share of action 1 in 400 decisions has a standard error of 0.022.
    assert abs((paid == 2).mean() - 0.75) < 0.11


@pytest.mark.slow
def test_simulated_logs_of_hidden_states_have_observations(tmp_path):
    mdp = chain(1)
    seen = jnp.asarray(np.tile([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]], (1, 2, 1, 1)))
    model = POMDP(mdp.transition, seen, mdp.reward, mdp.initial, 1.0)
    logs = simulate_logs(
        jax.random.key(1),
        model,
        deterministic(jnp.zeros((1, 5, 3), jnp.int32), 2),
        horizon=5,
        episodes=50,
    )
    assert (logs.observation[:, 0] == NOTHING).all()  # nothing before the first action
    stays = (logs.reward == 0) & (logs.action != NOTHING)
    after = logs.observation[:, 1:]
    moved = stays & (after == 0)
    assert moved.any() and (logs.reward[:, 1:][moved[:, :-1]] == 1).all()
    write_logs(logs, tmp_path / "a.parquet")
    assert same(read_logs(tmp_path / "a.parquet"), logs)


def test_summary_counts_lengths_visits_and_returns():
    found = describe_logs(expected(), few_visits=2)
    assert (found["episodes"], found["decisions"], found["ended"]) == (2, 3, 1)
    assert found["length"] == {"min": 1, "mean": 1.5, "max": 2}
    assert found["coverage"]["pairs"] == 3 and found["coverage"]["possible"] == 6
    assert found["coverage"]["below"] == 3
    assert [x["action"] for x in found["action_shares"]] == ["wait", "treat"]
    assert found["return"]["mean"] == 1.75
    assert found["return"]["quantiles"]["100"] == 2.0
    assert returns_of(expected(), 0.5).tolist() == [1.0, 2.0]
    json.dumps(found, allow_nan=False)


def test_summary_warns_of_weak_logs():
    logs = expected().select(np.array([False, True]))
    texts = " ".join(describe_logs(logs)["warnings"])
    assert "one episode" in texts and "one action only, `treat`" in texts


def test_a_row_of_json_that_is_no_text_is_named(tmp_path):
    file = tmp_path / "log.jsonl"
    row = b'{"episode": 1, "step": %d, "observation": "x%s", "action": 0, "reward": 1}'
    rows = [row % (0, b""), b"", row % (1, b"\xff"), row % (2, b"")]
    file.write_bytes(b"\n".join(rows))
    with pytest.raises(LogsError, match=r"log\.jsonl`: row 3 is not UTF-8"):
        read_logs(file)


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_a_row_of_a_table_that_is_not_utf_8_is_named(name, tmp_path):
    text = "\n".join((HEADER, *GOOD)).replace("high", "h\xf6ch").encode("latin-1")
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(LogsError, match="row 3 is not UTF-8"):
        read_logs(path)


def test_rows_are_placed_in_blocks(tmp_path, monkeypatch):
    path = csv_file(tmp_path, *GOOD)
    whole = read_logs(path)
    monkeypatch.setattr("sdm.data.logs.table.AT_ONCE", 2)
    parts = read_logs(path)
    for name in ("observation", "action", "reward", "probability", "task"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_a_column_that_some_batches_lack_has_no_values_there(tmp_path, monkeypatch):
    """A batch is a row here: one says that its episode ended, one names its task."""
    monkeypatch.setattr("sdm.data.logs.readers.json_lines.BLOCK", 1)
    row = {"step": 0, "observation": "x", "action": "a", "reward": 1.0}
    rows = [{**row, "episode": i} for i in range(9)]
    rows[3]["done"] = True
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_logs(path).done.tolist() == [i == 3 for i in range(9)]
    rows[0]["task"] = "north"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(LogsError, match="`task` is missing in rows 2, 3, 4 and 5"):
        read_logs(path)


def test_a_problem_of_several_batches_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.data.logs.readers.csv_table.BLOCK", 80)
    rows = [f"p{i},0,low,wait,x,north,true,0.5" for i in range(30)]
    with pytest.raises(LogsError) as error:
        read_logs(csv_file(tmp_path, *rows))
    text = "`reward` is not a number in rows 2 (found x), 3 (found x), 4 (found x)"
    assert str(error.value).endswith(f"{text} and 27 more")


def test_logs_that_do_not_fit_are_refused_while_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: 100)
    with pytest.raises(MemoryLimitError, match="sorting 4 rows needs"):
        read_logs(csv_file(tmp_path, *GOOD))
