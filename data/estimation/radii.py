r"""Radii of sets of rows around estimated rows, with the coverage that they state.

**L1, finite sample** (Weissman, Ordentlich, Seroussi, Verdu, Weinberger, 2003,
*Inequalities for the L1 deviation of the empirical distribution*): the relative
frequencies p̂ of n independent draws of one of S states satisfy

    P( ‖p̂ - p‖₁ ≥ ε ) ≤ (2^S - 2) exp(-n ε²/2).

The number n of visits of a row is random. A union bound over rows, with equal shares of
δ, and over n = 1, 2, …, with shares 1/(n(n + 1)), makes the radius hold for all rows
and all numbers of visits at once with probability 1 - δ.

**KL, large sample** (Ben-Tal, den Hertog, De Waegenaere, Melenberg, Rennen, 2013,
*Robust solutions of optimization problems affected by uncertain probabilities*):
2n KL(p ‖ p̂) tends to the chi-squared distribution with S - 1 degrees of freedom. With
equal shares of δ, all rows are covered with a probability that tends to 1 - δ.

**Credible, L1 or KL**: with the probability 1 - δ under the Dirichlet posterior, all
rows lie in their sets. Radii are c times the posterior mean of the distance, where c is
the 1 - δ quantile of the largest ratio of distance and mean distance in a row, over
draws from the posterior. Radii in proportion to a distance of the posterior are as in
Russel, Petrik (2019), *Beyond confidence regions: tight Bayesian ambiguity sets*.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

DRAWS = 1000  # posterior draws
BYTES = 1 << 26  # memory for draws of some rows
STICKS = 60  # largest parts of the probability of next states that were not seen
FEW = 1.5  # total parameter of these up to which other parts are rounding

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def weissman_radius(
    visits: Float[np.ndarray, "*B"], states: int, delta: float
) -> Float[np.ndarray, "*B"]:
    """Return the L1 radius of each row of relative frequencies; see the module.

    Args:
        visits: draws n of each row; the radius of a row without any is 2, the largest
            distance.
        states: possible next states S.
        delta: probability of a row outside of its ball, over all rows and all n.

    """
    if states < 2:  # a single state is certain
        return np.zeros(visits.shape)
    n = np.maximum(visits, 1.0)
    # log(2^S - 2), without overflow.
    patterns = states * np.log(2) + np.log1p(-(2.0 ** (1 - states)))
    share = np.log(n * (n + 1)) - np.log(delta / max(1, visits.size))
    radius = np.sqrt(2 / n * np.maximum(0.0, patterns + share))
    return np.where(visits > 0, np.minimum(radius, 2.0), 2.0)


def chi_squared_radius(
    visits: Float[np.ndarray, "*B"], states: int, delta: float
) -> Float[np.ndarray, "*B"]:
    """Return the KL radius of each row in nats; see the module.

    It is infinite for a row without visits.
    """
    quantile = stats.chi2.isf(delta / max(1, visits.size), max(1, states - 1))
    with np.errstate(divide="ignore"):
        return np.where(visits > 0, quantile / (2 * visits), np.inf)


def l1_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return Σ |p - q| over the last axis."""
    return np.abs(p - q).sum(-1)


def kl_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return Σ p log(p/q) over the last axis, in nats."""
    return special.rel_entr(p, q).sum(-1)


def credible_radius(
    posterior: Float[np.ndarray, "*B N"],
    visited: Bool[np.ndarray, "*B"],
    delta: float,
    distance: Distance,
    *,
    seed: int,
    draws: int = DRAWS,
) -> Float[np.ndarray, "*B"]:
    """Return the radius of each visited row around its posterior mean; 0 elsewhere.

    Args:
        posterior: Dirichlet parameters of each row, 0 for impossible next states.
        visited: the rows that the sets have to cover.
        delta: posterior probability of a row outside of its set.
        distance: of two arrays of rows, over the last axis: a sum of terms that depend
            on one next state each.
        seed: random seed of the draws.
        draws: number of draws from the posterior.

    """
    rows = -np.sort(-posterior[visited])  # distances do not depend on the order
    generator = np.random.default_rng(seed)
    found = np.empty((draws, len(rows)))
    # Next states that were not seen share the smallest parameter of a row.
    least = np.where(rows > 0, rows, np.inf).min(-1, initial=np.inf)[:, None]
    own = (rows > least).sum(-1)
    order = np.argsort(own, kind="stable")
    while len(order):
        width = int(own[order[0]])  # rows of similar width are drawn together
        size = max(1, BYTES // (8 * draws * (2 * width + STICKS)))
        part = order[: min(size, int((own[order] <= 2 * width).sum()))]
        width = int(own[part[-1]])
        found[:, part] = _drawn_distances(rows[part], width, distance, draws, generator)
        order = order[len(part) :]
    typical = found.mean(0)
    ratio = found / np.where(typical > 0, typical, 1.0)
    factor = np.quantile(ratio.max(-1, initial=0.0), 1 - delta, method="higher")
    radius = np.zeros(visited.shape)
    radius[visited] = factor * typical
    return radius


def _drawn_distances(
    rows: Float[np.ndarray, "R N"],
    width: int,
    distance: Distance,
    draws: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "K R"]:
    """Return distances of draws of rows from their means.

    The parameters of a row descend, and are equal from position `width` on, until 0.
    The M equal ones together are one category of the draw, which is then broken into M
    parts in size-biased order: part j takes a Beta(1 + a, (M - j) a) share of what is
    left. The first `STICKS` parts take all but rounding if M a is small; else all
    categories are drawn.
    """
    total = rows.sum(-1, keepdims=True)
    mean = rows / total
    rest, a = (rows[:, width:] > 0).sum(-1), rows[:, width : width + 1].sum(-1)
    if (rest * a).max(initial=0.0) > FEW or rows.shape[-1] <= width + STICKS:
        return distance(dirichlet_draws(rows, draws, generator), mean)
    grouped = np.concatenate([rows[:, :width], (rest * a)[:, None]], -1)
    drawn = dirichlet_draws(grouped, draws, generator)
    left, parts = drawn[..., -1], []
    for j in range(1, STICKS + 1):
        more = np.maximum(rest - j, 0) * a
        share = np.where(
            more > 0, generator.beta(1 + a, np.maximum(more, 1e-300), left.shape), 1.0
        )
        parts.append(left * share)
        left = left * (1 - share)
    several = np.stack([*parts, left], -1)
    # Where fewer than `STICKS` states are left, the other parts are no states.
    each = np.arange(STICKS) < rest[:, None]
    others = np.maximum(rest - STICKS, 0)[:, None]
    equal = np.concatenate([each, others], -1) * (a / total[:, 0])[:, None]
    p = np.concatenate([drawn[..., :width], several], -1)
    return distance(p, np.concatenate([mean[:, :width], equal], -1))


def dirichlet_draws(
    parameters: Float[np.ndarray, "R N"], draws: int, generator: np.random.Generator
) -> Float[np.ndarray, "K R N"]:
    """Return draws of rows; next states of parameter 0 have probability 0.

    Small parameters are drawn on a log scale, where they do not underflow: if G has the
    shape a + 1, then G U^(1/a) has the shape a.
    """
    shape = (draws, *parameters.shape)
    positive = parameters > 0
    a = np.where(positive, parameters, 1.0)
    logs = np.log(generator.standard_gamma(a + 1, size=shape))
    logs += np.log1p(-generator.random(shape)) / a
    logs = np.where(positive, logs, -np.inf)
    logs -= logs.max(-1, keepdims=True)
    weight = np.exp(logs)
    return weight / weight.sum(-1, keepdims=True)
