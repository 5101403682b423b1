"""Training texts from a dataset, and which of their tokens are trained on."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from plain_schemas import ALL, COMPACT, plain_schema
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sdm.llm.episode import Episode
from sdm.llm.schema import Contents, schemas
from sdm.llm.texts import (
    PlayedEpisode,
    TrainingText,
    episodes_by_task,
    split_tasks,
    training_texts,
)
from sdm.llm.tiny import tiny_tokenizer
from sdm.llm.tokens import check_tokenizer, encode, tokenise
from sdm.tasks.family import Component

# No action begins another.
FEW = {name: plain_schema(name, actions=3) for name in ALL}


def tasks(count=4, episodes=5):
    """Episodes that name their task and themselves: `TaEa`."""
    return {
        t: [PlayedEpisode(Episode((t, e), (0, 0), (0.0, 0.0))) for e in range(episodes)]
        for t in range(count)
    }


def wandered(count=4, episodes=4):
    """Random episodes: `TbEc`, where the oracle would have done c, then a."""
    return {
        t: [
            PlayedEpisode(Episode((t, 10 + e), (1, 2), (0.0, 0.0)), (2, 0), random=True)
            for e in range(episodes)
        ]
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


@pytest.mark.parametrize("shows", ["optimal", "random", "all"])
@pytest.mark.parametrize("asks", [False, True])
def test_random_episodes_are_shown_or_asked_about_only_where_wanted(shows, asks):
    texts = training_texts(
        tasks(),
        COMPACT,
        random=wandered(),
        show=shows,
        ask_random=asks,
        support=2,
        per_task=20,
        seed=0,
    )
    seen = [[episode for _, episode in parts(text)] for text in texts]
    own, more = set(range(5)), set(range(10, 14))
    queries = [query for *_, query in seen]
    assert set(queries) == (own | more if asks else own)
    assert sum(query in more for query in queries) == asks * len(queries) / 2
    support = {episode for *support, _ in seen for episode in support}
    assert support == {"optimal": own, "random": more, "all": own | more}[shows]
    assert all(len(set(episodes)) == 3 for episodes in seen)
    for text, episodes in zip(texts, seen, strict=True):
        # What the oracle did, nothing of random demonstrations, and of a random query
        # what the oracle would have done.
        wanted = [(0, 0) if e in own else (None, None) for e in episodes[:-1]]
        wanted += [(0, 0) if episodes[-1] in own else (2, 0)]
        plain = not more & set(episodes)
        assert text.wanted == (None if plain else tuple(a for x in wanted for a in x))


def test_more_demonstrations_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"task 0: .* need 6 trajectories, found 5"):
        training_texts(tasks(), COMPACT, support=5, per_task=1, seed=0)
    options = {"random": wandered(), "show": "random", "per_task": 1, "seed": 0}
    training_texts(tasks(), COMPACT, support=4, **options)
    with pytest.raises(ValueError, match=r"task 0: .* need 5 trajectories, found 4"):
        training_texts(tasks(), COMPACT, support=5, **options)
    with pytest.raises(ValueError, match=r"task 0: .* need 5 trajectories, found 4"):
        training_texts(tasks(), COMPACT, support=4, ask_random=True, **options)


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
            "optimal_action": [[0, 1], [2, 0], [2, 1]],
        }
    )
    grouped = episodes_by_task(table)
    assert grouped[0][1] == PlayedEpisode(Episode((3, 4), (2, 0), (0.0, 1.0)))
    assert list(grouped) == [0] and len(grouped[0]) == 2
    found = episodes_by_task(table, random=True)
    episode = Episode((5, 6), (1, 1), (0.25, 0.0))
    assert found == {1: [PlayedEpisode(episode, (2, 1), random=True)]}


def test_decisions_without_a_label_have_none_wherever_they_are():
    """The second decision of every episode comes after its end."""
    half = {
        "task": [0, 0, 0],
        "observation": [[1, 2]] * 3,
        "action": [[0, 1], [2, 1], [1, 1]],
        "reward": [[0.0, 0.0]] * 3,
        "random": [False] * 3,
        "optimal_action": [[0, -1], [2, -1], [1, -1]],
    }
    own = episodes_by_task(pa.table(half))
    (text,) = training_texts(own, COMPACT, support=2, per_task=1, seed=0)
    assert set(text.wanted[::2]) == {0, 1, 2} and set(text.wanted[1::2]) == {None}
    half["random"] = [False, True, True]
    half["optimal_action"][1:] = [[-1, -1]] * 2
    table = pa.table(half)
    options = {"random": episodes_by_task(table, random=True), "show": "random"}
    own = episodes_by_task(table)
    (text,) = training_texts(own, COMPACT, support=2, per_task=1, seed=0, **options)
    assert text.wanted == (None, None, None, None, 0, None)


@pytest.mark.parametrize("schema", FEW.values(), ids=FEW)
def test_only_action_tokens_are_labelled_when_only_actions_count(schema):
    episode = Episode((3, 12), (0, 2), (-0.05, 0.44))
    text = TrainingText(0, f"{schema.render(episode)}\n{schema.render(episode)}")
    tokenizer = tiny_tokenizer()
    row = tokenise(tokenizer, schema, [text], loss="actions")[0]
    kept = [i for i, label in enumerate(row["labels"]) if label != -100]
    # One token a character, so that positions in tokens are positions in the text.
    spans = schema.action_spans(text.text)
    assert kept == [place for a, b in spans for place in range(a, b)]
    assert [row["labels"][i] for i in kept] == [row["input_ids"][i] for i in kept]
    assert row["length"] == len(text.text)


def test_every_token_is_labelled_when_all_count():
    text = TrainingText(0, "3a4b\n5c")
    row = tokenise(tiny_tokenizer(), COMPACT, [text], loss="all")[0]
    assert row["labels"] == row["input_ids"]
    assert tiny_tokenizer().decode(row["input_ids"]) == text.text
    np.testing.assert_array_equal(row["length"], 7)


@pytest.mark.parametrize("loss", ["all", "actions"])
@pytest.mark.parametrize("name", ["paper", "compact"])  # in words, lengths differ
def test_what_is_learned_may_differ_from_what_was_done(name, loss):
    schema = FEW[name]
    shown = Episode((3, 12), (1, 2), (0.5, 0.44))
    asked = Episode((4, 5), (2, 1), (0.1, 0.0))
    text = f"{schema.render(shown)}\n{schema.render(asked)}"
    wanted = (None, None, 0, 2)
    (plain,) = tokenise(tiny_tokenizer(), schema, [TrainingText(0, text)], loss=loss)
    (row,) = tokenise(
        tiny_tokenizer(), schema, [TrainingText(0, text, wanted)], loss=loss
    )
    assert row["input_ids"] == plain["input_ids"], "it reads what was done"
    places = [start for start, _ in schema.action_spans(text)]
    learned = [row["labels"][place] for place in places]
    letters = tiny_tokenizer()([schema.answer(0).strip(), schema.answer(2).strip()])
    (first,), (second,) = letters["input_ids"]
    assert learned == [-100, -100, first, second]
    elsewhere = [i for i in range(len(text)) if i not in places]
    assert [row["labels"][i] for i in elsewhere] == [
        plain["labels"][i] for i in elsewhere
    ]


def with_special_tokens(template):
    """The tokenizer of `tiny`, which adds `<s>` and `</s>` as the template says."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    names = ((name, tokenizer.convert_tokens_to_ids(name)) for name in ("<s>", "</s>"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=list(names)
    )
    return tokenizer


@pytest.mark.parametrize("template", ["$A", "$A </s>", "<s> $A </s>", "$A </s> </s>"])
def test_what_a_tokenizer_appends_is_no_part_of_a_text(template):
    """Neither in training, also with other labels, nor in acting; `<s>` in front is."""
    tokenizer, text = with_special_tokens(template), "3a4c"
    plain = tiny_tokenizer()([text, "30b\n"])["input_ids"]
    front = [tokenizer.bos_token_id] * template.startswith("<s>")
    assert encode(tokenizer, [text, "30b\n"]) == [[*front, *ids] for ids in plain]
    assert encode(tokenizer, []) == []
    (first,), (last,) = tiny_tokenizer()(["b", "a"])["input_ids"]
    for wanted, actions in ((None, None), ((1, 0), (first, last))):
        texts = [TrainingText(0, text, wanted)]
        (row,) = tokenise(tokenizer, FEW["compact"], texts, loss="all")
        assert row["input_ids"] == [*front, *plain[0]]
        learned = list(row["labels"][len(front) :])
        assert learned == plain[0] if wanted is None else learned[1::2] == [*actions]
        assert row["length"] == len(row["labels"]) == len(front) + 4
    check_tokenizer(tokenizer, COMPACT)


def test_a_tokeniser_that_splits_elsewhere_cannot_learn_what_was_not_done():
    # "1a" is one token, "1b" two.
    vocabulary = {c: i for i, c in enumerate(["<unk>", "1", "a", "b", "1a"])}
    merges = Tokenizer(models.BPE(vocabulary, [("1", "a")], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=merges, unk_token="<unk>")
    with pytest.raises(
        ValueError, match="`compact`: random episodes cannot be queries"
    ):
        tokenise(tokenizer, COMPACT, [TrainingText(0, "1a", (1,))], loss="all")
    (row,) = tokenise(tokenizer, COMPACT, [TrainingText(0, "1a", (0,))], loss="all")
    assert row["labels"] == row["input_ids"]


NESTED = Contents((Component("energy", 4),), ("charge", "charge too", "work"), False)


def learned_text(schema, text, wanted=None):
    """The text with `_` for every character that is not learned, a token each."""
    row = tokenise(
        tiny_tokenizer(), schema, [TrainingText(0, text, wanted)], loss="actions"
    )[0]
    kept = [label != -100 for label in row["labels"]]
    return "".join(char if keep else "_" for char, keep in zip(text, kept, strict=True))


def test_the_end_of_an_action_is_learned_where_another_goes_on():
    """Otherwise nothing would tell `charge` from the beginning of `charge too`."""
    words = schemas()["words"](NESTED)
    text = words.render(Episode((3, 1), (0, 1)))
    assert text == "energy 3, charge. energy 1, charge too."
    assert learned_text(words, text) == "__________charge.___________charge too."
    # What a random demonstration did is not learned, and neither is where it ends.
    assert learned_text(words, text, (None, 1)) == "_" * 28 + "charge too."
    few = schemas()["words"](dataclasses.replace(NESTED, actions=("charge", "work")))
    assert learned_text(few, "energy 3, charge.") == "__________charge_"


def test_another_action_of_another_length_can_be_learned():
    """Where it takes as many tokens, whatever its letters."""
    vocabulary = {
        w: i for i, w in enumerate(["<unk>", "energy", "3", ",", "go", "wait", "."])
    }
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>")
    schema = schemas()["words"](dataclasses.replace(NESTED, actions=("go", "wait")))
    text = schema.render(Episode((3, 3), (0, 1)))
    (row,) = tokenise(tokenizer, schema, [TrainingText(0, text, (1, 0))], loss="all")
    assert row["input_ids"] == [1, 2, 3, 4, 6, 1, 2, 3, 5, 6]
    assert row["labels"] == [1, 2, 3, 5, 6, 1, 2, 3, 4, 6]


@pytest.mark.parametrize("name", schemas())
def test_a_tokeniser_must_know_every_name(name):
    """Also that of a value which only the last of many observations has."""
    values = (*(f"v{i}" for i in range(120)), "Z")
    contents = Contents((Component("seen", 121, values),), ("go",), False)
    schema = schemas()[name](contents)
    if name == "words":
        with pytest.raises(ValueError, match="no token for 'Z'"):
            check_tokenizer(tiny_tokenizer(), schema)
    else:
        check_tokenizer(tiny_tokenizer(), schema)
