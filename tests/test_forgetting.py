"""Language tests against values by hand, and `sdm forgetting` on tiny models."""

import json

import numpy as np
import pytest
import torch
from small_llama import small_llama
from typer.testing import CliRunner

from sdm.cli import app
from sdm.feedback.choices import ChoiceScorer
from sdm.feedback.config import FeedbackConfig
from sdm.feedback.forgetting import (
    HELD_OUT,
    forgetting_cell,
    tuning_blocks,
)
from sdm.feedback.forgetting_config import ForgettingConfig
from sdm.feedback.language_tests import (
    blocks_of,
    held_out_text,
    language_tasks,
    mean_loss,
    perplexity,
    task_accuracy,
)
from sdm.feedback.reward_model import RewardConfig
from sdm.feedback.tuning_texts import policy_texts, reward_texts
from sdm.llm.schema import make_schema
from sdm.llm.tiny import tiny_tokenizer
from sdm.tasks.registry import load_family


@pytest.fixture(scope="module")
def model():
    return small_llama(0, len(tiny_tokenizer()), width=32, factor=2)


def test_every_question_has_one_right_choice():
    tasks = language_tasks(30, seed=0)
    for name, questions in tasks.items():
        assert len(questions) == 30
        for each in questions:
            assert len(set(each.choices)) == len(each.choices) == 4, name
            assert all(c.startswith(" ") and c.endswith(".") for c in each.choices)
        assert len({q.answer for q in questions}) == 4  # no place is the right one
    for q in tasks["addition"]:
        a, b = q.text.split(". ")[-1].removesuffix(" is").split(" plus ")
        assert q.choices[q.answer] == f" {int(a) + int(b)}."
    for q in tasks["copy"]:
        assert q.choices[q.answer] == f" {q.text.split()[-1].removesuffix(':')}."


def test_the_seed_decides_the_questions():
    first, again, other = (language_tasks(5, seed=s) for s in (1, 1, 2))
    assert first == again and first != other


def test_accuracy_is_the_share_of_right_answers():
    """A scorer that knows the sums is right in them."""

    class Knows(ChoiceScorer):
        def __init__(self):
            pass

        def score(self, questions, choices):
            a, b = questions[0].split(". ")[-1].removesuffix(" is").split(" plus ")
            return np.array([[-abs(float(c) - int(a) - int(b)) for c in choices]])

    tasks = {"addition": language_tasks(10, seed=0)["addition"]}
    assert task_accuracy(Knows(), tasks) == {"addition": 1.0}


def test_a_random_model_answers_at_chance(model):
    tasks = {"copy": language_tasks(40, seed=0)["copy"]}
    found = task_accuracy(ChoiceScorer(model, tiny_tokenizer()), tasks)["copy"]
    # Four standard errors of a share of one half at most, about 1/4.
    assert abs(found - 0.25) < 4 * 0.5 / np.sqrt(40)


def test_perplexity_is_the_exponential_of_the_mean_loss(model):
    tokenizer, text = tiny_tokenizer(), "energy 3, charge. " * 20
    ids = tokenizer(text)["input_ids"][:96]
    losses = []
    with torch.no_grad():
        for block in (ids[:48], ids[48:96]):
            scores = model(torch.tensor([block])).logits[0].log_softmax(-1)
            losses += [-float(scores[i - 1, block[i]]) for i in range(1, 48)]
    found = perplexity(model, tokenizer, text, tokens=100, window=48)
    # Rounding in single precision.
    assert found == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    uniform = small_llama(0, len(tokenizer), width=32, factor=2)
    with torch.no_grad():
        uniform.get_output_embeddings().weight.zero_()
    assert np.exp(mean_loss(uniform, [ids])) == pytest.approx(len(tokenizer), rel=1e-5)


def test_blocks_are_complete():
    assert blocks_of(list(range(7)), 3) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="at least 9 are needed, found 7"):
        blocks_of(list(range(7)), 9)


def test_the_held_out_text_is_long_and_the_same_each_time():
    text = held_out_text()
    assert text == held_out_text() and len(text) > 50_000
    assert text.count("ArgumentParser") and "\n\n" in text


def study(tasks=6):
    return FeedbackConfig(load_family("energy"), 4, tasks, RewardConfig(support=3))


def test_policy_texts_are_episodes_of_the_oracle():
    schema = make_schema("words", load_family("energy").spaces, "mdp", rewards=True)
    texts = policy_texts(study(), 0)
    assert len(texts) == 6
    for text in texts:
        episodes = [schema.parse(line) for line in text.split("\n")]
        assert [len(e.actions) for e in episodes] == [4, 4, 4]


def test_reward_texts_answer_for_the_higher_value():
    texts = reward_texts(study(tasks=2), 0)
    assert len(texts) == 2 * 45  # values of all states differ
    for text in texts:
        first, second, answer = (line.split() for line in text.split("\n")[-3:])
        higher = 1 if int(first[-1]) > int(second[-1]) else 2  # V* grows with energy
        assert answer == ["Answer:", str(higher)]
    assert {text[-1] for text in texts} == {"1", "2"}


@pytest.mark.slow
def test_both_ways_to_tune_get_the_same_number_of_tokens():
    config, tokenizer = (
        ForgettingConfig("tiny", tokens=512, block=64, batch=2),
        tiny_tokenizer(),
    )
    for texts in (policy_texts, reward_texts):
        blocks = tuning_blocks(config, tokenizer, texts(study(30), 0))
        assert len(blocks) == HELD_OUT + 8 and {len(b) for b in blocks} == {64}
    with pytest.raises(ValueError, match="raise `--tasks`"):
        tuning_blocks(config, tokenizer, policy_texts(study(1), 0))


WORDS = (
    "forgetting --base tiny --tasks 40 --horizon 4 --tokens 1024 --block 64 --batch 2 "
    "--held-out-tokens 256 --questions 4 --seeds 1 --full-rate 0.002 --json"
).split()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
def test_a_training_learns_the_texts_and_changes_the_tests(tmp_path):
    config = ForgettingConfig(
        "tiny",
        tokens=512,
        block=64,
        batch=2,
        full_rate=2e-3,
        held_out_tokens=64,
        questions=1,
    )

    def tuned(seed):
        return forgetting_cell(
            config,
            study(30),
            "reward",
            seed,
            tmp_path,
            adapter=False,
            progress=lambda step, done, total: None,
        )

    found = tuned(0)
    before, after = found["before"], found["after"]
    assert found["tokens"] == 512
    assert after["tuning_loss"] < before["tuning_loss"] - 0.5
    assert after["perplexity"] != before["perplexity"]
    assert before.keys() == after.keys() and len(after["by_task"]) == 5
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(ValueError, match="a folder is needed"):
        forgetting_cell(
            config,
            study(),
            "policy",
            0,
            None,
            adapter=True,
            progress=lambda step, done, total: None,
        )


@pytest.mark.slow  # four trainings, and one again
def test_the_command_tunes_in_four_ways_and_resumes(tmp_path):
    out = tmp_path / "out"
    first = CliRunner().invoke(app, [*WORDS, "--out", str(out)])
    assert first.exit_code == 0, first.stderr
    report = json.loads(first.stdout)
    ways = {(row["tuning"], row["weights"]) for row in report["rows"]}
    assert ways == {(t, w) for t in ("policy", "reward") for w in ("adapter", "full")}
    assert report["tokens"] == 1024
    for row in report["rows"]:
        # The same base and text before; training on all weights learns the texts.
        if row["weights"] == "full":
            assert row["tuning_loss_change"]["mean"] < -0.5
        before = row["perplexity_before"]["mean"]
        assert before == report["rows"][0]["perplexity_before"]["mean"]
        assert row["perplexity_after"]["mean"] != before
    # A run that was killed after three of the four trainings does the fourth only.
    rows = (out / "rows.jsonl").read_text().splitlines()
    partial = tmp_path / "again.partial"
    (partial / "cells").mkdir(parents=True)
    (partial / "plan.json").write_text((out / "plan.json").read_text())
    for row in rows[:3]:
        cell = json.loads(row)
        folder = partial / "cells" / f"{cell['tuning']}-{cell['weights']}-0"
        folder.mkdir()
        (folder / "result.json").write_text(row)
    words = [*WORDS, "--out", str(tmp_path / "again"), "--resume"]
    resumed = CliRunner().invoke(app, words)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stderr.count("seed 0 …") == 1
    assert (tmp_path / "again" / "rows.jsonl").read_text().splitlines() == rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--base", "smolm2"), "did you mean `smollm2`"),
        (("--tokens", "100"), "tokens = 100"),
        (("--full-rate", "2"), "full_rate = 2.0"),
        (("--tasks", "1"), "raise `--tasks`"),
    ],
)
def test_the_command_names_wrong_input(tmp_path, words, message):
    result = CliRunner().invoke(app, [*WORDS, *words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and message in result.stderr


def test_a_block_beyond_the_context_is_named(tmp_path):
    config = ForgettingConfig(
        "tiny", tokens=40_000, block=8193, batch=2, held_out_tokens=9000
    )
    with pytest.raises(ValueError, match=r"block = 8193: .* context of 8192 tokens"):
        forgetting_cell(
            config,
            study(30),
            "reward",
            0,
            tmp_path,
            adapter=False,
            progress=lambda *step: None,
        )
