"""Bradley–Terry fits against choix, a dense Newton method, and invariances."""

import itertools

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from scipy.stats import spearmanr

from sdm.feedback.bradley_terry import fit_scores, pair_design
from sdm.feedback.fit_quality import quality, rank_correlation
from sdm.feedback.identifiability import (
    DegeneratePreferences,
    check_identifiable,
    pairs_identify,
    segments_identify,
)

# How often the item of the row won against that of the column.
WINS = [
    [0, 3, 1, 4, 2],
    [1, 0, 2, 2, 3],
    [2, 1, 0, 3, 1],
    [1, 2, 1, 0, 2],
    [1, 1, 2, 1, 0],
]
# choix 0.4.1: `ilsr_pairwise` with alpha=0, and `opt_pairwise` with alpha=0.05 and 0.5,
# whose penalty is twice ours. They stop at changes of about 1e-14 and 1e-9.
CHOIX = {
    0.0: [0.5498724974, 0.1020228475, 0.1043899765, -0.3718127411, -0.3844725802],
    0.1: [0.5366680934, 0.0998989066, 0.1021259998, -0.3645672220, -0.3741257778],
    1.0: [0.4434727937, 0.0842772319, 0.0856271359, -0.3110095228, -0.3023676387],
}


def comparisons(wins=WINS):
    pairs = [
        (i, j)
        for i, row in enumerate(wins)
        for j, times in enumerate(row)
        for _ in range(times)
    ]
    return np.array(pairs), np.ones(len(pairs))


def fitted(pairs, outcome, items, **options):
    found = fit_scores(pair_design(pairs, items), outcome, **options)
    assert found.converged
    return found.scores


@pytest.mark.parametrize("penalty", CHOIX)
def test_scores_are_those_of_choix(penalty):
    scores = fitted(*comparisons(), 5, penalty=penalty)
    # The gradient is below 1e-10 per comparison, times 37 comparisons, over the least
    # curvature, about 5: 1e-9; choix stops at about the same distance.
    assert np.allclose(scores, CHOIX[penalty], atol=1e-8)


def newton(pairs, outcome, items, penalty):
    """Solve for the scores by a dense Newton method, one comparison at a time."""
    scores = np.zeros(items)
    for _ in range(100):
        slope, bend = penalty * scores, penalty * np.eye(items)
        for (i, j), y in zip(pairs, outcome, strict=True):
            p = 1 / (1 + np.exp(scores[j] - scores[i]))
            slope[i] += p - y
            slope[j] -= p - y
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                bend[a, b] += sign * p * (1 - p)
        scores = scores - np.linalg.pinv(bend) @ slope
    return scores


def test_ties_are_half_a_win_of_either():
    random = np.random.default_rng(0)
    pairs = np.array(list(itertools.permutations(range(6), 2)))
    outcome = random.choice([0.0, 0.5, 1.0], len(pairs))
    for penalty in (0.0, 0.3):
        scores = fitted(pairs, outcome, 6, penalty=penalty)
        assert np.allclose(scores, newton(pairs, outcome, 6, penalty), atol=1e-8)
    doubled = np.repeat(pairs, 2, axis=0)
    split = np.where(outcome == 0.5, 1.0, outcome), np.where(outcome == 0.5, 0, outcome)
    halves = np.stack(split, axis=-1).ravel()
    twice = fitted(doubled, halves, 6)
    assert np.allclose(twice, fitted(pairs, outcome, 6), atol=1e-8)


def test_two_items_have_the_log_odds():
    pairs, outcome = np.array([[0, 1]] * 4), np.array([1.0, 1, 1, 0])
    assert np.allclose(fitted(pairs, outcome, 2), np.log(3) / 2 * np.array([1, -1]))


def test_scores_do_not_depend_on_order_direction_or_names():
    pairs, outcome = comparisons()
    base = fitted(pairs, outcome, 5)
    assert abs(base.sum()) < 1e-9  # rounding: every step adds up to zero
    turned = fitted(pairs[::-1, ::-1], 1 - outcome, 5)
    renamed = np.array([3, 0, 4, 1, 2])
    moved = fitted(renamed[pairs], outcome, 5)
    assert np.allclose(turned, base, atol=1e-9)
    assert np.allclose(moved[renamed], base, atol=1e-9)


def test_segments_fit_the_sums_of_their_states():
    """With the probabilities of known scores as outcomes, the fit finds the scores."""
    random = np.random.default_rng(1)
    truth = random.normal(size=6)
    truth -= truth.mean()
    visits = random.multinomial(3, np.full(6, 1 / 6), size=40).astype(float)
    first, second = np.array(list(itertools.combinations(range(40), 2))).T
    design = sparse.csr_array(visits[first] - visits[second])
    outcome = expit(design @ truth)
    found = fit_scores(design, outcome)
    assert np.allclose(found.scores, truth, atol=1e-7)  # gradient over least curvature


@pytest.mark.slow
def test_a_million_comparisons_give_the_scores_back():
    random = np.random.default_rng(0)
    truth = random.normal(size=10_000)
    pairs = random.integers(0, 10_000, (1_000_000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    chance = expit(truth[pairs[:, 0]] - truth[pairs[:, 1]])
    outcome = (random.random(len(pairs)) < chance).astype(float)
    scores = fitted(pairs, outcome, 10_000)
    # 200 comparisons of an item, each of variance 1/5, give an error of 0.16 in scores
    # of deviation 1: a correlation of 1 / √(1 + 0.16²) = 0.987.
    assert np.corrcoef(scores, truth)[0, 1] > 0.98


def test_a_fit_names_wrong_input():
    pairs, outcome = comparisons()
    design = pair_design(pairs, 5)
    for wrong, message in (
        (lambda: pair_design(np.array([[0, 5]]), 5), "pairs[0, 1] = 5"),
        (lambda: pair_design(np.array([[2, 2]]), 5), "item 2 with itself"),
        (lambda: fit_scores(design, outcome * 2), "outcome[0] = 2.0"),
        (lambda: fit_scores(design, outcome[:3]), "outcome has shape"),
        (lambda: fit_scores(design, outcome, penalty=-1.0), "penalty"),
        (lambda: fit_scores(design[:0], outcome[:0]), "at least one comparison"),
    ):
        with pytest.raises(ValueError) as error:
            wrong()
        assert message in str(error.value)


CYCLE = np.array([[0, 1], [1, 2], [2, 0]])


@pytest.mark.parametrize(
    ("pairs", "outcome", "components", "separable"),
    [
        (CYCLE, [1, 1, 1], 1, False),
        (CYCLE, [1, 1, 0], 1, True),  # 0 beats 1 beats 2, and 0 beats 2
        (CYCLE[:2], [0.5, 0.5], 1, False),
        (CYCLE[:2], [0.5, 1], 1, True),
        (CYCLE[:1], [0.5], 2, False),
        (CYCLE[:1], [1], 2, True),
    ],
)
def test_identifiability_of_small_graphs(pairs, outcome, components, separable):
    outcome = np.array(outcome, float)
    found = pairs_identify(pairs, outcome, 3)
    assert (found.components, found.separable) == (components, separable)
    linear = segments_identify(pair_design(pairs, 3), outcome)
    assert (linear.components, linear.separable) == (components, separable)


def test_both_ways_to_find_separable_preferences_agree():
    random = np.random.default_rng(2)
    seen = set()
    for _ in range(60):
        pairs = np.array([random.choice(5, 2, replace=False) for _ in range(7)])
        outcome = random.choice([0.0, 0.5, 1.0], 7, p=[0.45, 0.1, 0.45])
        graph = pairs_identify(pairs, outcome, 5)
        linear = segments_identify(pair_design(pairs, 5), outcome)
        assert (graph.components, graph.separable, graph.ties) == (
            linear.components,
            linear.separable,
            linear.ties,
        )
        seen.add(graph.separable)
    assert seen == {True, False}


def test_scores_of_separable_preferences_grow_without_a_penalty():
    pairs, outcome = CYCLE, np.array([1.0, 1, 0])
    fits = [fitted(pairs, outcome, 3, penalty=x) for x in (1.0, 1e-2, 1e-4)]
    spans = [np.ptp(scores) for scores in fits]
    assert spans[0] < 2 < spans[1] < 10 < spans[2]


@pytest.mark.parametrize(
    ("pairs", "outcome", "items", "message"),
    [
        (CYCLE, [0.5] * 3, 3, "every comparison is a tie"),
        (CYCLE, [1, 1, 1], 4, r"not connected, found 2 components \(3 comp"),
        (CYCLE, [1, 1, 0], 3, "separable"),
        (CYCLE[:0], [], 1, "at least 2 different items"),
    ],
)
def test_degenerate_preferences_are_named(pairs, outcome, items, message):
    found = pairs_identify(pairs, np.array(outcome, float), items)
    with pytest.raises(DegeneratePreferences, match=message):
        check_identifiable(found, [str(i) for i in range(items)], penalty=0.0)


def test_a_penalty_makes_separable_preferences_usable():
    found = pairs_identify(CYCLE, np.array([1.0, 1, 0]), 3)
    check_identifiable(found, list("abc"), penalty=0.1)


def test_quality_of_known_predictions():
    z = np.log(np.array([3.0, 3.0, 3.0, 3.0]))  # probability 0.75
    outcome = np.array([1.0, 1.0, 1.0, 0.0])
    found = quality(z, outcome)
    assert found.accuracy == 0.75
    assert found.calibration_error == pytest.approx(0.0, abs=1e-12)  # rounding
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert found.log_loss == pytest.approx(entropy)
    worse = quality(z, 1 - outcome)
    assert (worse.accuracy, worse.calibration_error) == (0.25, pytest.approx(0.5))
    assert quality(-z, 1 - outcome).bins == found.bins
    assert np.isnan(quality(z, np.full(4, 0.5)).accuracy)
    assert quality(np.zeros(2), np.array([1.0, 0.0])).accuracy == 0.5


def test_rank_correlation_is_spearmans_up_to_rounding():
    random = np.random.default_rng(3)
    a, b = random.normal(size=(2, 30))
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    tied = np.repeat([1.0, 2.0, 3.0], 10)
    noise = 1e-12 * random.normal(size=30)
    assert rank_correlation(np.exp(tied) + noise, tied) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(np.ones(4), a[:4]))
