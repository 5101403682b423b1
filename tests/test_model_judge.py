"""A language model as a judge, with a small model of random weights."""

import json

import numpy as np
import pytest
import torch
from small_llama import small_llama
from typer.testing import CliRunner

from sdm.cli import app
from sdm.feedback.choices import ChoiceScorer
from sdm.feedback.judge import (
    FIRST,
    OUTSIDE,
    SECOND,
    TIE,
    Items,
    JudgeError,
    parse_judge,
)
from sdm.feedback.judges.model import ModelJudge, answers, question, seen_before
from sdm.feedback.reward_model import RewardConfig, learn_reward
from sdm.feedback.subjects import states_as_items
from sdm.llm.base_names import UnknownBaseError
from sdm.llm.tiny import tiny_tokenizer

STATES = tuple(f"energy {i}" for i in range(5))
PAIRS = np.array([[i, j] for i in range(5) for j in range(5) if i != j])


@pytest.fixture(scope="module")
def scorer():
    tokenizer = tiny_tokenizer()
    return ChoiceScorer(small_llama(3, len(tokenizer), width=32, factor=4), tokenizer)


def by_hand(scorer, text, choice):
    """Sum the log-probabilities of the tokens of a choice after a text."""
    ids = scorer.tokenizer(text + choice)["input_ids"]
    start = len(scorer.tokenizer(text)["input_ids"])
    with torch.no_grad():
        logits = scorer.model(torch.tensor([ids])).logits.log_softmax(-1)[0]
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))


def test_scores_are_those_of_whole_texts(scorer):
    items = Items(STATES, np.arange(5.0), "go up")
    texts = [question(items, STATES[a], STATES[b]) for a, b in PAIRS]
    texts += [seen_before("energy 3", ["energy 1"] * n) for n in range(4)]
    choices = (" 1", " 2", " yes")
    found = scorer.score(texts, choices)
    # The score of a shared first token, the space, is left out of all choices.
    wanted = [
        [by_hand(scorer, text + " ", choice[1:]) for choice in choices]
        for text in texts
    ]
    # Cached and whole texts differ by rounding in single precision.
    assert np.allclose(found, wanted, atol=1e-4)


def test_choices_that_begin_alike_are_refused(scorer):
    with pytest.raises(ValueError, match="none may begin with another"):
        scorer.score(["a question"], (" 1", " 12"))


def test_answers_cancel_the_preference_for_a_position():
    position = np.log([[[0.8, 0.1]], [[0.8, 0.1]]])  # always the first
    assert answers(position, 0.9).tolist() == [TIE]
    content = np.log([[[0.8, 0.1]], [[0.7, 0.2]]])
    assert answers(content, 0.9).tolist() == [FIRST]
    assert answers(content[::-1], 0.9).tolist() == [SECOND]
    outside = np.log([[[0.01, 0.03]], [[0.02, 0.03]]])
    assert answers(outside, 0.9).tolist() == [OUTSIDE]
    assert answers(outside, 0.99).tolist() == [SECOND]


def test_a_model_prefers_the_same_item_in_either_order(scorer):
    judge = ModelJudge("small", most_outside=1.0, scorer=scorer)
    items = Items(STATES, np.arange(5.0), "go up")
    answer = judge.compare(items, PAIRS, seed=())
    assert set(answer.tolist()) >= {FIRST, SECOND}
    assert (judge.compare(items, PAIRS[:, ::-1], seed=()) == -answer).all()


def test_a_model_that_answers_outside_is_not_trained_on(scorer):
    """Random weights spread over 50 characters: 1 and 2 have a few per cent."""
    judge = ModelJudge("small", scorer=scorer)
    subjects = states_as_items(STATES, np.arange(5.0), "go up")
    with pytest.raises(JudgeError, match="10 of 10 answers are outside"):
        learn_reward(judge, subjects, RewardConfig(), seed=(0,))


def test_the_question_shows_goal_demonstrations_and_captions():
    items = Items(STATES, np.arange(5.0), "go up", demonstrations=("3a4b",))
    text = question(items, STATES[1], STATES[4])
    parts = ["go up", "3a4b", "1: energy 1", "2: energy 4", "Answer:"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.slow
def test_novelty_compares_with_a_caption_without_content(scorer):
    judge = ModelJudge("small", scorer=scorer)
    assert judge.is_new("energy 1", [], seed=())
    for caption in STATES:
        texts = [seen_before(each, ["energy 1"]) for each in (caption, "something")]
        odds = [
            by_hand(scorer, t + " ", "no") - by_hand(scorer, t + " ", "yes")
            for t in texts
        ]
        assert judge.is_new(caption, ["energy 1"], seed=()) == (odds[0] >= odds[1])


def test_names_of_models_are_checked_before_they_are_loaded():
    assert parse_judge("model:smollm2").name == "model:smollm2"
    with pytest.raises(JudgeError, match="base is missing"):
        parse_judge("model")
    with pytest.raises(UnknownBaseError):
        parse_judge("model:smolm2")


def test_the_command_takes_a_model(tmp_path):
    """`tiny` has random weights, so its answers are outside of the choices."""
    words = "feedback --judge model:tiny --tasks 2 --horizon 3 --seeds 1 --json".split()
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "45 of 45 answers are outside" in refused.stderr
    folder = tmp_path / "copier"
    tokenizer = tiny_tokenizer()
    # Rows of the embedding that are larger make 1 and 2 the most probable tokens.
    model = small_llama(1, len(tokenizer), width=32, factor=4)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        ids = tokenizer.convert_tokens_to_ids(["1", "2"])
        probe = torch.tensor([tokenizer("Answer: ")["input_ids"]])
        state = model.model(probe).last_hidden_state[0, -1]
        for each in ids:
            head[each] += 5 * state / state.norm() ** 2
        # Between these two, it depends on the captions.
        head[ids[0]] += torch.randn(32, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    words[2] = f"model:{folder}"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["judges"][f"model:{folder}"]
    assert found["asked"] == 45 and found["outside"] <= 22
