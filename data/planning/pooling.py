r"""How much the actions of one observation differ, estimated from the logs.

The row of a pair is drawn around the row of its observation, whatever the action:

    P(· | s, a) ~ Dirichlet(c m_s),  m_s = frequencies of next states after s,

or, with the probability ρ_b, is m_s itself. Its posterior mean is

    E P(· | s, a) = w P̂(· | s, a) + (1 - w) m_s,  w = q n(s, a) / (n(s, a) + c),

where q is the posterior probability that the row differs from m_s. The concentration c
and the shares ρ_b maximise the marginal likelihood (empirical Bayes). There is a share
for each bin b of the action's frequency, since actions that are rarely taken are often
recorded for other reasons than their effect. In the marginal likelihood, m_s is
estimated from the other actions, itself shrunk to the frequencies of all next states:
else the row of a frequent action would be compared with itself.

Marginal likelihood of counts: the Dirichlet-multinomial distribution (Minka, 2000,
*Estimating a Dirichlet distribution*).
"""

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from sdm.data.planning.evidence import Evidence

SHARES = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.25, 0.5)  # ends of the bins
GRID = np.geomspace(5, 3000, 13)  # concentrations
SAME = 1e7  # concentration of rows that do not differ
ROUNDS = 30  # of expectation and maximisation, which is far beyond convergence
LEAST, MOST = -5.0, 12.0  # log concentration of the rows of observations


def pooling_weights(evidence: Evidence) -> Float[np.ndarray, "S A"]:
    """Return the weight w of each pair's own row; 0 without visits."""
    visits = evidence.visits.ravel()
    pair = np.repeat(np.arange(len(visits)), np.diff(evidence.count.indptr))
    base = _bases(evidence, pair)
    bins = np.digitize(evidence.behavior.ravel(), SHARES)
    same = _log_likelihood(evidence, pair, base, SAME)
    best, weight = -np.inf, np.zeros_like(visits)
    for concentration in GRID:
        differs = _log_likelihood(evidence, pair, base, concentration)
        total, chance = _mixture(differs, same, bins, visits > 0)
        if total > best:
            best = total
            weight = chance * visits / (visits + concentration)
    return weight.reshape(evidence.visits.shape)


def concentration(evidence: Evidence) -> float:
    """Return the concentration c, on a grid, of a prior in which all rows differ."""
    pair = np.repeat(np.arange(evidence.visits.size), np.diff(evidence.count.indptr))
    base = _bases(evidence, pair)
    found = [_log_likelihood(evidence, pair, base, c).sum() for c in GRID]
    return float(GRID[np.argmax(found)])


def _bases(evidence: Evidence, pair: Int[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """Return the probability of each counted next state, given other actions' rows."""
    actions = evidence.visits.shape[1]
    everywhere = evidence.pooled_count.sum(0) + 0.5
    everywhere = everywhere / everywhere.sum()
    total, own = evidence.visits.sum(1), evidence.visits.ravel()
    pooled = evidence.pooled_count

    def negative(log_concentration: float) -> float:
        c = np.exp(log_concentration)
        weight = c * everywhere[pooled.indices]
        found = (special.gammaln(weight + pooled.data) - special.gammaln(weight)).sum()
        return float(-(found + (special.gammaln(c) - special.gammaln(c + total)).sum()))

    fitted = optimize.minimize_scalar(negative, bounds=(LEAST, MOST), method="bounded")
    c, state, to = np.exp(fitted.x), pair // actions, evidence.count.indices
    others = np.asarray(pooled[state, to]).ravel() - evidence.count.data
    return (others + c * everywhere[to]) / (total[state] - own[pair] + c)


def _log_likelihood(
    evidence: Evidence,
    pair: Int[np.ndarray, " C"],
    base: Float[np.ndarray, " C"],
    concentration: float,
) -> Float[np.ndarray, " R"]:
    """Return the log marginal likelihood of each pair's counts."""
    visits, weight = evidence.visits.ravel(), concentration * base
    each = special.gammaln(weight + evidence.count.data) - special.gammaln(weight)
    total = np.bincount(pair, each, minlength=len(visits))
    rest = special.gammaln(concentration) - special.gammaln(concentration + visits)
    return total + rest


def _mixture(
    differs: Float[np.ndarray, " R"],
    same: Float[np.ndarray, " R"],
    bins: Int[np.ndarray, " R"],
    seen: np.ndarray,
) -> tuple[float, Float[np.ndarray, " R"]]:
    """Return the log likelihood of a mixture, and the chance that each row differs."""
    size = len(SHARES) + 1
    number = np.bincount(bins[seen], minlength=size)
    share = np.full(size, 0.5)
    for _ in range(ROUNDS):
        first = np.log(1 - share[bins]) + differs
        both = np.logaddexp(first, np.log(share[bins]) + same)
        chance = np.exp(first - both)
        kept = np.bincount(bins[seen], 1 - chance[seen], minlength=size)
        share = (kept + 0.5) / (number + 1)  # Jeffreys' prior keeps it inside (0, 1)
    return float(both[seen].sum()), np.where(seen, chance, 0.0)
