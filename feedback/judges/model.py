"""`model:BASE`: a language model, asked in words and scored as in acting.

A base model, or the run folder of `sdm finetune`, compares two captions. It sees the
goal, demonstrations if there are any, and both captions:

    Goal: …
    Which is better for this goal?
    1: energy 3
    2: energy 7
    Answer:

Each question is asked in both orders, since language models prefer positions (Wang et
al., 2024): the log-odds of the first caption are the mean of both orders. If they are
nearly zero, the judge is undecided. It is not offered the answer `neither`, which small
models prefer by its position alone. It answers outside of its choices if other texts
than 1 and 2 have a probability above `MOST_OUTSIDE`.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from sdm.feedback.judge import (
    FIRST,
    OUTSIDE,
    SECOND,
    TIE,
    Items,
    JudgeError,
    register_judge,
)

if TYPE_CHECKING:
    from sdm.feedback.choices import ChoiceScorer

CHOICES = (" 1", " 2")
YES, NO = " yes", " no"
MOST_OUTSIDE = 0.9  # probability of text other than the choices
UNDECIDED = 0.01  # log-odds, in nats, below which neither is preferred
UNKNOWN = "something"  # caption without content, which shows the bias of an answer


class ModelJudge:
    """A language model as a judge.

    Attributes:
        base: name of a base model, or a run folder.
        most_outside: probability of other text than the choices above which an answer
            is outside of them.

    """

    reads_task = False
    needs_torch = True
    together = 64

    def __init__(
        self,
        base: str,
        most_outside: float = MOST_OUTSIDE,
        scorer: "ChoiceScorer | None" = None,
    ) -> None:
        """Store the name; without a scorer, the first question loads the model."""
        self.base, self.most_outside, self._given = base, most_outside, scorer

    @property
    def name(self) -> str:
        """Return `model:BASE`."""
        return f"model:{self.base}"

    @cached_property
    def scorer(self) -> "ChoiceScorer":
        """Return the loaded model.

        Raises:
            BaseModelError: if the model is unavailable.
            StorageError: if a run folder cannot be read.

        """
        from sdm.feedback.choices import ChoiceScorer
        from sdm.llm.bases import load_base
        from sdm.llm.run_folder import is_run
        from sdm.llm.runs import load_run

        if self._given is not None:
            return self._given
        if is_run(Path(self.base)):
            run = load_run(Path(self.base))
            return ChoiceScorer(run.model, run.tokenizer)
        return ChoiceScorer(*load_base(self.base))

    def compare(
        self, items: Items, pairs: Int[np.ndarray, "C 2"], *, seed: Sequence[int]
    ) -> Int[np.ndarray, " C"]:
        """Compare captions in both orders; the seed has no effect."""
        orders = np.stack([pairs, pairs[:, ::-1]])  # [2, C, 2]
        texts = [
            question(items, items.captions[a], items.captions[b])
            for a, b in orders.reshape(-1, 2)
        ]
        scores = self.scorer.score(texts, CHOICES).astype(np.float64)
        return answers(scores.reshape(2, len(pairs), 2), self.most_outside)

    def is_new(
        self,
        caption: str,
        history: Sequence[str],
        *,
        seed: Sequence[int],
    ) -> bool:
        """Compare `no` and `yes` with their log-odds for a caption without content.

        The comparison removes the preference for a word (contextual calibration, Zhao
        et al., 2021). With no history, everything is new.
        """
        if not history:
            return True
        texts = [seen_before(each, history) for each in (caption, UNKNOWN)]
        scores = self.scorer.score(texts, (YES, NO)).astype(np.float64)
        odds = scores[:, 1] - scores[:, 0]
        return bool(odds[0] >= odds[1])


def question(items: Items, first: str, second: str) -> str:
    """Return the text that asks which of two captions is better."""
    shown = "".join(f"{text}\n" for text in items.demonstrations)
    if shown:
        shown = f"Good examples:\n{shown}"
    return (
        f"Goal: {items.goal}\n{shown}Which is better for this goal?\n"
        f"1: {first}\n2: {second}\nAnswer:"
    )


def seen_before(caption: str, history: Sequence[str]) -> str:
    """Return the text that asks whether a caption is in a history."""
    seen = "".join(f"- {text}\n" for text in history)
    return f"Visited so far:\n{seen}Was this visited before?\n- {caption}\nAnswer:"


def answers(scores: np.ndarray, most_outside: float) -> np.ndarray:
    """Return the answer of each comparison.

    Args:
        scores: log-probabilities of the choices [2, C, 2], in both orders.
        most_outside: largest probability of other text, averaged over both orders.

    Returns:
        Answers [C], for the captions in the first order.

    """
    lead = (scores[0, :, 0] - scores[0, :, 1] - scores[1, :, 0] + scores[1, :, 1]) / 2
    answer = np.where(lead > 0, FIRST, SECOND)
    answer[np.abs(lead) < UNDECIDED] = TIE
    outside = 1 - np.exp(scores).sum(-1).mean(0)
    answer[outside > most_outside] = OUTSIDE
    return answer


@register_judge("model")
def model(argument: str) -> ModelJudge:
    """Return the judge of a base model or a run folder.

    Raises:
        JudgeError: if there is no argument.
        UnknownBaseError: if no base can have this name.

    """
    from sdm.llm.base_names import check_base_name

    if not argument:
        raise JudgeError(
            "judge `model`: the base is missing", "pass `--judge model:smollm2`"
        )
    if not (Path(argument) / "config.yaml").is_file():
        check_base_name(argument)
    return ModelJudge(argument)
