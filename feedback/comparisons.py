"""Which items are compared, and the answers of a judge to these comparisons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from sdm.feedback.judge import CHOICES, OUTSIDE, TIE, Items, Judge, JudgeError
from sdm.storage.arrays import read_array
from sdm.storage.files import temporary_name

Progress = Callable[[int, int], None]  # called with answered and all comparisons


@dataclass(frozen=True)
class Preferences:
    """Answers of a judge, without those outside of its choices.

    Attributes:
        pairs: indices of the two items of each comparison.
        outcome: 1 if the first was preferred, 0 if the second, 0.5 for a tie.
        asked: comparisons that the judge was asked.
        outside: answers outside of the choices, which are dropped.

    """

    pairs: Int[np.ndarray, "C 2"]
    outcome: Float[np.ndarray, " C"]
    asked: int
    outside: int


def choose_pairs(items: int, most: int, *, seed: Sequence[int]) -> np.ndarray:
    """Return up to `most` different pairs of items, in random order and direction.

    If there are more pairs than `most`, the first ones form a cycle through all items,
    so that the graph of comparisons is connected if `most` is at least `items`; the
    others are drawn at random.

    Args:
        items: number of items N.
        most: number of pairs.
        seed: entropy of the choice, for NumPy's generator.

    Returns:
        Pairs of indices [C, 2].

    """
    random = np.random.default_rng(list(seed))
    if items < 2:
        return np.zeros((0, 2), np.int64)
    if items * (items - 1) // 2 <= most:
        chosen = np.stack(np.triu_indices(items, 1), axis=-1)
    else:
        chosen = _some_pairs(items, most, random)
    flipped = random.random(len(chosen)) < 0.5
    return np.where(flipped[:, None], chosen[:, ::-1], chosen)


def _some_pairs(items: int, most: int, random: np.random.Generator) -> np.ndarray:
    """Return a cycle through all items, then random pairs, without repetition."""
    order = random.permutation(items)
    drawn = np.stack([order, np.roll(order, -1)], axis=-1)
    while True:
        drawn = np.sort(drawn, axis=-1)
        drawn = drawn[drawn[:, 0] != drawn[:, 1]]
        codes, first = np.unique(drawn[:, 0] * items + drawn[:, 1], return_index=True)
        if len(codes) >= most:
            return drawn[np.sort(first)[:most]]
        more = random.integers(0, items, (2 * most, 2))
        drawn = np.concatenate([drawn[np.sort(first)], more])


def ask(
    judge: Judge,
    items: Items,
    pairs: Int[np.ndarray, "C 2"],
    *,
    seed: Sequence[int],
    most_outside: float = 0.5,
    kept: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Preferences:
    """Ask a judge to compare pairs of items.

    Identical captions are ties, about which the judge is not asked (Klissarov et al.,
    2024). Answers outside of the choices are counted and dropped.

    Args:
        judge: the judge.
        items: the items.
        pairs: indices of the items to compare.
        seed: entropy of a random judge.
        most_outside: largest share of answers outside of the choices.
        kept: prefix of the files that store answers for a resumed run; None to store
            nothing.
        progress: called with the number of answered and of all comparisons.

    Raises:
        JudgeError: if more than `most_outside` of the answers are outside of the
            choices, or the judge returns another number of answers.

    """
    captions = np.asarray(items.captions, dtype=object)
    same = captions[pairs[:, 0]] == captions[pairs[:, 1]]
    asked, answers = pairs[~same], []
    for first in range(0, len(asked), judge.together):
        part = asked[first : first + judge.together]
        file = None if kept is None else kept.with_name(f"{kept.name}-{first:07d}.npy")
        if len(asked) <= judge.together and judge.together > 10**6:
            file = None  # faster to ask again than to read
        if file is not None and file.is_file():
            found = read_array(file)
        else:
            found = np.asarray(judge.compare(items, part, seed=[*seed, first]))
            if file is not None:
                with temporary_name(file) as temporary, temporary.open("wb") as out:
                    np.save(out, found)
        if found.shape != (len(part),):
            raise JudgeError(
                f"judge `{judge.name}`: must answer {len(part)} comparisons, found "
                f"{found.shape} answers"
            )
        answers.append(found)
        progress(first + len(part), len(asked))
    answer = np.full(len(pairs), TIE)
    answer[~same] = np.concatenate([*answers, np.zeros(0, int)])
    inside = np.isin(answer, CHOICES)
    _check_outside(judge, answer[~inside], len(asked), most_outside)
    return Preferences(
        pairs=pairs[inside],
        outcome=(answer[inside] + 1) / 2,
        asked=len(asked),
        outside=int((~inside).sum()),
    )


def _check_outside(judge: Judge, outside: np.ndarray, asked: int, most: float) -> None:
    """Raise `JudgeError` if too many answers are outside of the choices."""
    if len(outside) > most * asked:
        other = sorted({int(x) for x in outside} - {OUTSIDE})
        what = f", such as {other[0]}" if other else ""
        raise JudgeError(
            f"judge `{judge.name}`: {len(outside)} of {asked} answers are outside of "
            f"its choices{what}: they are not trained on",
            "choose another judge",
        )


def hold_out(
    preferences: Preferences, items: int, share: float, *, seed: Sequence[int]
) -> Bool[np.ndarray, " C"]:
    """Return which comparisons are held out [C].

    Those of a spanning forest of the graph of comparisons are kept, so that the rest
    connects the items that all of them connect.

    Args:
        preferences: the comparisons.
        items: number of items.
        share: share of the comparisons to hold out.
        seed: entropy of the choice.

    """
    count = len(preferences.outcome)
    # The graph stores 1 + the rank of each comparison: a random spanning forest.
    rank = np.random.default_rng(list(seed)).permutation(count)
    pairs, first = np.unique(
        np.sort(preferences.pairs, axis=-1), axis=0, return_index=True
    )
    graph = csr_array((rank[first] + 1.0, (pairs[:, 0], pairs[:, 1])), (items, items))
    needed = np.isin(rank + 1, minimum_spanning_tree(graph).data.astype(int))
    chosen = np.zeros(count, bool)
    free = np.flatnonzero(~needed)
    free = free[np.argsort(rank[free])]
    chosen[free[: round(share * count)]] = True
    return chosen
