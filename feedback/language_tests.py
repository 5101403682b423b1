"""What a language model knows besides decisions: perplexity and small tasks.

The held-out text is the English of the docstrings of Python's standard library, which
every installation has. The tasks are made in code: each shows examples, then a question
with several choices, of which the most probable one is the model's answer.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from sdm.feedback.choices import ChoiceScorer
from sdm.llm.bases import CausalModel
from sdm.llm.logits import logits_of
from sdm.llm.tokens import Tokens, encode

MODULES = (
    *("argparse", "collections", "contextlib", "datetime", "functools", "heapq"),
    *("inspect", "itertools", "json", "logging", "pathlib", "random", "statistics"),
    *("string", "tempfile", "textwrap", "threading"),
)
SHORTEST = 200  # characters of a docstring
OPPOSITES = (
    *(("hot", "cold"), ("up", "down"), ("big", "small"), ("open", "closed")),
    *(("day", "night"), ("fast", "slow"), ("wet", "dry"), ("rich", "poor")),
    *(("old", "young"), ("full", "empty"), ("early", "late"), ("hard", "soft")),
)
KINDS_OF = {
    "animal": ("dog", "horse", "cow", "lion", "rabbit"),
    "fruit": ("apple", "banana", "orange", "cherry", "lemon"),
    "color": ("red", "green", "blue", "yellow", "black"),
    "metal": ("iron", "gold", "silver", "copper", "lead"),
}
ORDERS = (
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j"),
)
CHOICES = 4


@dataclass(frozen=True)
class Question:
    """A question with several choices.

    Attributes:
        text: the examples and the question.
        choices: text of each choice.
        answer: index of the correct choice.

    """

    text: str
    choices: tuple[str, ...]
    answer: int


def language_tasks(count: int, *, seed: int) -> Mapping[str, Sequence[Question]]:
    """Return `count` questions of each kind.

    Args:
        count: questions of each kind.
        seed: random seed of words, numbers and choices.

    """
    random = np.random.default_rng([seed, 11])
    makers = {
        "addition": _addition,
        "category": _category,
        "copy": _copy,
        "opposite": _opposite,
        "order": _order,
    }
    return {name: [make(random) for _ in range(count)] for name, make in makers.items()}


def _question(
    random: np.random.Generator, text: str, right: str, wrong: Sequence[str]
) -> Question:
    """Return a question with the right and some wrong choices in random order."""
    others = [each for each in dict.fromkeys(wrong) if each != right]
    picked = random.permutation(len(others))[: CHOICES - 1]
    choices = [right, *(others[i] for i in picked)]
    order = random.permutation(len(choices))
    # A choice ends with a dot, so that none begins with another one.
    shown = tuple(f" {choices[i]}." for i in order)
    return Question(text, shown, int(np.flatnonzero(order == 0)[0]))


def _some(random: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [words[i] for i in random.choice(len(words), count, replace=False)]


def _addition(random: np.random.Generator) -> Question:
    pairs = random.integers(0, 5, (3, 2))
    shown = [f"{a} plus {b} is {a + b}." for a, b in pairs[:2]]
    a, b = pairs[2]
    text = " ".join([*shown, f"{a} plus {b} is"])
    return _question(random, text, str(a + b), [str(n) for n in range(10)])


def _category(random: np.random.Generator) -> Question:
    kinds = _some(random, tuple(KINDS_OF), 3)
    words = [_some(random, KINDS_OF[kind], 1)[0] for kind in kinds]
    pairs = list(zip(words, kinds, strict=True))
    shown = [f"the word {word} names a kind of {kind}." for word, kind in pairs[:2]]
    word, kind = pairs[2]
    text = " ".join([*shown, f"the word {word} names a kind of"])
    return _question(random, text, kind, tuple(KINDS_OF))


def _copy(random: np.random.Generator) -> Question:
    every = [word for words in KINDS_OF.values() for word in words]
    words = _some(random, every, 3)
    shown = [f"say {word}: {word}." for word in words[:2]]
    return _question(random, " ".join([*shown, f"say {words[2]}:"]), words[2], every)


def _opposite(random: np.random.Generator) -> Question:
    pairs = [OPPOSITES[i] for i in random.choice(len(OPPOSITES), 3, replace=False)]
    shown = [f"the opposite of {a} is {b}." for a, b in pairs[:2]]
    text = " ".join([*shown, f"the opposite of {pairs[2][0]} is"])
    return _question(random, text, pairs[2][1], [word for p in OPPOSITES for word in p])


def _order(random: np.random.Generator) -> Question:
    words = ORDERS[random.integers(len(ORDERS))]
    first = int(random.integers(len(words) - 3))
    text = " ".join(f"{word}," for word in words[first : first + 3])
    return _question(random, text, words[first + 3], words)


def task_accuracy(
    scorer: ChoiceScorer, tasks: Mapping[str, Sequence[Question]]
) -> dict[str, float]:
    """Return the share of right answers to the questions of each kind."""
    found = {}
    for name, questions in tasks.items():
        right = [
            int(scorer.score([q.text], q.choices)[0].argmax()) == q.answer
            for q in questions
        ]
        found[name] = float(np.mean(right))
    return found


def held_out_text() -> str:
    """Return the docstrings of some modules of the standard library."""
    found = dict[str, None]()  # keeps the order, drops repetitions
    for name in MODULES:
        module = importlib.import_module(name)
        members = sorted(vars(module).items(), key=lambda pair: pair[0])
        for item in (module, *(x for _, x in members)):
            if not callable(item) and item is not module:
                continue
            text = inspect.getdoc(item) or ""
            if len(text) >= SHORTEST and text.isascii():
                found[text] = None
    return "\n\n".join(found)


def perplexity(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    tokens: int,
    window: int = 256,
) -> float:
    """Return the perplexity of a text, in windows that are read independently.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        text: the text.
        tokens: tokens to read, from its beginning.
        window: tokens per window.

    """
    (ids,) = encode(tokenizer, [text])
    return float(np.exp(mean_loss(model, blocks_of(ids[:tokens], window))))


def blocks_of(ids: Tokens, length: int) -> list[Tokens]:
    """Return complete blocks of tokens.

    Raises:
        ValueError: if there are fewer tokens than in one block.

    """
    if len(ids) < length:
        raise ValueError(f"tokens: at least {length} are needed, found {len(ids)}")
    last = len(ids) - length + 1
    return [ids[first : first + length] for first in range(0, last, length)]


@torch.no_grad()
def mean_loss(model: CausalModel, blocks: Sequence[Tokens]) -> float:
    """Return the mean negative log-probability of tokens after the first, in nats."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for block in blocks:
        ids = torch.tensor([block], device=model.device)
        scores = logits_of(model, len(block), input_ids=ids).log_softmax(-1)
        wanted = scores[0, :-1].gather(1, ids[0, 1:, None])
        total -= float(wanted.double().sum())
        count += len(block) - 1
    model.train(training)
    return total / count
