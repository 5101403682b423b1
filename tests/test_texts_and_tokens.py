"""Training texts from a dataset, and which of their tokens are trained on."""

import numpy as np
import pyarrow as pa
import pytest

from sdm.llm.bases import tiny_tokenizer
from sdm.llm.serialize import SCHEMAS, Episode
from sdm.llm.texts import (
    TrainingText,
    episodes_by_task,
    merge,
    split_tasks,
    training_texts,
)
from sdm.llm.tokens import tokenise

COMPACT = SCHEMAS["compact"]


def tasks(count=4, episodes=5):
    """Episodes that name their task and themselves: `TaEa`."""
    return {
        t: [Episode((t, e), (0, 0), (0.0, 0.0)) for e in range(episodes)]
        for t in range(count)
    }


def parts(text):
    return [COMPACT.parse(line).observations for line in text.text.split("\n")]


def test_a_text_is_of_one_task_and_never_shows_its_query():
    for text in training_texts(tasks(), COMPACT, support=2, per_task=7, seed=0):
        seen = parts(text)
        assert len(seen) == 3
        assert {task for task, _ in seen} == {text.task}
        assert len({episode for _, episode in seen}) == 3


def test_every_episode_is_the_query_equally_often():
    texts = training_texts(tasks(), COMPACT, support=1, per_task=10, seed=0)
    queries = [parts(text)[-1] for text in texts]
    for task in range(4):
        assert sorted(e for t, e in queries if t == task) == sorted([*range(5)] * 2)


def test_a_tasks_texts_depend_on_the_seed_and_its_index_only():
    options = {"support": 2, "per_task": 3}
    alone = training_texts({2: tasks()[2]}, COMPACT, **options, seed=1)
    among = training_texts(tasks(), COMPACT, **options, seed=1)
    other = training_texts(tasks(), COMPACT, **options, seed=2)
    assert alone == [t for t in among if t.task == 2]
    assert among != other


def test_demonstrations_may_come_from_more_episodes_than_are_asked_about():
    shown = tasks(episodes=9)
    texts = training_texts(
        tasks(), COMPACT, shown=shown, support=2, per_task=20, seed=0
    )
    seen = [[episode for _, episode in parts(text)] for text in texts]
    assert {query for *_, query in seen} == set(range(5))
    assert {episode for *support, _ in seen for episode in support} == set(range(9))
    assert all(len(set(episodes)) == 3 for episodes in seen)


def test_more_demonstrations_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"need 6 trajectories .* task 0 has 5"):
        training_texts(tasks(), COMPACT, support=5, per_task=1, seed=0)


def test_validation_tasks_are_held_out():
    train, held_out = split_tasks(range(50), held_out=0.1, seed=0)
    assert len(held_out) == 5 and sorted(train + held_out) == list(range(50))
    assert split_tasks(range(50), held_out=0.1, seed=1)[1] != held_out
    assert [len(x) for x in split_tasks([3, 8], held_out=0.1, seed=0)] == [1, 1]
    with pytest.raises(ValueError, match="at least 2"):
        split_tasks([3], held_out=0.1, seed=0)


def test_a_datasets_rows_are_grouped_by_task():
    table = pa.table(
        {
            "task": [0, 0, 1],
            "observation": [[1, 2], [3, 4], [5, 6]],
            "action": [[0, 1], [2, 0], [1, 1]],
            "reward": [[0.5, 0.0], [0.0, 1.0], [0.25, 0.0]],
            "random": [False, False, True],
        }
    )
    grouped = episodes_by_task(table)
    assert grouped[0][1] == Episode((3, 4), (2, 0), (0.0, 1.0))
    assert list(grouped) == [0] and len(grouped[0]) == 2
    wandered = episodes_by_task(table, random=True)
    assert wandered == {1: [Episode((5, 6), (1, 1), (0.25, 0.0))]}
    assert merge(grouped, wandered) == grouped
    assert merge(grouped, {0: wandered[1]})[0] == [*grouped[0], *wandered[1]]


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_only_action_tokens_are_labelled_when_only_actions_count(schema):
    episode = Episode((3, 12), (0, 2), (-0.05, 0.44))
    text = TrainingText(0, f"{schema.render(episode)}\n{schema.render(episode)}")
    tokenizer = tiny_tokenizer()
    row = tokenise(tokenizer, schema, [text], loss="actions")[0]
    kept = [i for i, label in enumerate(row["labels"]) if label != -100]
    # One token a character, so that positions in tokens are positions in the text.
    assert kept == [a for a, _ in schema.action_spans(text.text)]
    assert [row["labels"][i] for i in kept] == [row["input_ids"][i] for i in kept]
    assert row["length"] == len(text.text)


def test_every_token_is_labelled_when_all_count():
    text = TrainingText(0, "3a4b\n5c")
    row = tokenise(tiny_tokenizer(), COMPACT, [text], loss="all")[0]
    assert row["labels"] == row["input_ids"]
    assert tiny_tokenizer().decode(row["input_ids"]) == text.text
    np.testing.assert_array_equal(row["length"], 7)
