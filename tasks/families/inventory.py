r"""Inventory control with lost sales and an unknown demand distribution.

A state is the market m, slow or busy, and the stock s ∈ {0, ..., M}. Action a orders a
units, which arrive at once. Units beyond the capacity are neither delivered nor
charged: the stock rises to y = min(s + a, M), so that all orders above M - s have the
same effect. Then demand d is drawn: min(y, d) units are sold, s' = max(y - d, 0) units
are left, and demand above y is lost. The market does not change with probability ρ.

Demand in market m is negative binomial with mean μ_m and dispersion k (its variance is
μ_m + k μ_m²; k = 0 is Poisson), restricted to d ≤ D:

    P(d + 1 | m) / P(d | m) = (1 + k d) μ_m / ((d + 1) (1 + k μ_m)),
    μ_slow = (1 - w) μ,   μ_busy = (1 + w) μ.

The reward is the expected one, in units of the revenue of one sale:

    r(m, s, a) = E[min(y, d)] - h E[max(y - d, 0)] - b E[max(d - y, 0)] - c 1[y > s].

Each task draws its own μ, k and ρ. It starts in a uniformly random state.

In the POMDP, the agent observes only the stock. It knows its orders, hence the sales,
but neither the demand in a stock-out (censored demand) nor the market.

Sources: Song and Zipkin (1993) for demand that depends on a market; Treharne and Sox
(2002) for markets that are not observed; Bensoussan, Çakanyıldırım and Sethi (2007) for
censored demand that follows a Markov chain. All numbers are ours.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sdm.tasks.family import (
    Component,
    Defaults,
    Kind,
    Params,
    Spaces,
)
from sdm.tasks.models import MDP, POMDP, check_count
from sdm.tasks.ranges import UniformFamily, check_between
from sdm.tasks.registry import register

MARKETS = ("slow", "busy")


@register
@dataclass(frozen=True)
class InventoryFamily(UniformFamily):
    """Inventory tasks that differ in the demand.

    Attributes:
        mean_min: smallest mean demand μ over both markets, in units per stage.
        mean_max: largest mean demand μ over both markets, in units per stage.
        dispersion_min: smallest dispersion k of the demand; 0 for Poisson.
        dispersion_max: largest dispersion k of the demand.
        persistence_min: smallest probability ρ that the market does not change.
        persistence_max: largest probability ρ that the market does not change.
        swing: share w by which a market's mean demand differs from μ, in [0, 1].
        capacity: largest stock M, in units.
        max_order: largest order, in units.
        max_demand: largest demand D, in units per stage.
        holding: holding cost h per unit left at the end of a stage.
        penalty: penalty b per unit of lost demand, on top of the lost sale.
        fixed: fixed cost c per order.
        discount: discount factor per stage, in [0, 1].

    """

    mean_min: float = 1.0
    mean_max: float = 4.0
    dispersion_min: float = 0.0
    dispersion_max: float = 0.5
    persistence_min: float = 0.6
    persistence_max: float = 0.95
    swing: float = 0.5
    capacity: int = 7
    max_order: int = 7
    max_demand: int = 20
    holding: float = 0.2
    penalty: float = 0.5
    fixed: float = 0.5
    discount: float = 0.95

    name: ClassVar[str] = "inventory"
    drawn: ClassVar[tuple[str, ...]] = ("mean", "dispersion", "persistence")
    cells: ClassVar[tuple[int, ...]] = (8, 4, 4)
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp", "pomdp"})
    # Rewards are expectations: an agent that observes them could infer the demand.
    defaults: ClassVar[Defaults] = Defaults()

    def __post_init__(self) -> None:
        """Raise `ValueError` for invalid ranges, sizes or costs."""
        self.check_ranges(("mean", "dispersion"), most=np.inf)
        self.check_ranges(("persistence",))
        check_between(self, ("swing", "discount"))
        check_between(self, ("holding", "penalty", "fixed"), most=np.inf)
        for name in ("capacity", "max_order", "max_demand"):
            check_count(name, getattr(self, name), 1)

    @property
    def spaces(self) -> Spaces:
        """The state has market and stock; a symbol of the POMDP shows only stock."""
        stock = Component("stock", self.capacity + 1)
        return Spaces(
            state=(Component("market", 2, MARKETS), stock),
            actions=tuple(f"order {a}" for a in range(self.max_order + 1)),
            symbol=(stock,),
        )

    def demand(self, params: Params) -> Float[Array, "*B 2 D"]:
        """Return the probability of each demand 0, ..., D in each market."""
        kind = params["mean"].dtype
        alone = (None,) * params["mean"].ndim  # all tasks share these arrays
        share = jnp.asarray([[1 - self.swing], [1 + self.swing]], kind)[alone]
        d = jnp.arange(self.max_demand, dtype=kind)[(*alone, None)]
        mean = params["mean"][..., None, None] * share
        k = params["dispersion"][..., None, None]
        ratio = (1 + k * d) * mean / ((d + 1) * (1 + k * mean))  # [*B, 2, D]
        others = jnp.cumprod(ratio, axis=-1)
        weight = jnp.concatenate([jnp.ones_like(others[..., :1]), others], axis=-1)
        return weight / weight.sum(-1, keepdims=True)

    def model(self, params: Params, kind: Kind) -> MDP | POMDP:
        """Return the models of tasks with these demand parameters."""
        transition, reward = self._tables(params)
        *batch, states, actions = reward.shape
        initial = jnp.full((*batch, states), 1 / states, reward.dtype)
        if kind == "mdp":
            return MDP(transition, reward, initial, self.discount)
        shown = jnp.tile(jnp.eye(self.capacity + 1, dtype=reward.dtype), (2, 1))
        first = jnp.broadcast_to(shown, (*batch, *shown.shape))
        later = jnp.broadcast_to(shown, (*batch, actions, *shown.shape))
        return POMDP(transition, later, reward, initial, self.discount, first)

    @partial(jax.jit, static_argnums=0)
    def _tables(
        self, params: Params
    ) -> tuple[Float[Array, "*B S A S"], Float[Array, "*B S A"]]:
        """Return transitions and rewards.

        Both are first tabulated by the stock y after delivery: orders with the same y
        then have exactly equal values, so that the smallest order is chosen.
        """
        demand = self.demand(params)  # [*B, m, d]
        kind, batch = demand.dtype, demand.shape[:-2]
        levels, actions = self.capacity + 1, self.max_order + 1
        stock, wanted = np.arange(levels), np.arange(self.max_demand + 1)
        over = stock[:, None] - wanted  # y - d
        left, lost = np.maximum(over, 0), np.maximum(-over, 0)
        sold = np.minimum(stock[:, None], wanted)
        pay = jnp.asarray(sold - self.holding * left - self.penalty * lost, kind)
        into = jnp.asarray(np.eye(levels)[left], kind)  # [y, d, s']
        filled = np.minimum(
            stock[:, None] + np.arange(actions), self.capacity
        )  # [s, a]
        cost = jnp.asarray(self.fixed * (filled > stock[:, None]), kind)
        earned = jnp.einsum("...md,yd->...my", demand, pay)[..., filled]
        moved = jnp.einsum("...md,ydn->...myn", demand, into)[..., filled, :]
        same = jnp.eye(2, dtype=kind)[(None,) * len(batch)]
        stays = params["persistence"][..., None, None]
        market = stays * same + (1 - stays) * (1 - same)  # [*B, m, m']
        transition = jnp.einsum("...msan,...mk->...msakn", moved, market)
        states = 2 * levels
        reward = earned - cost[(None,) * (len(batch) + 1)]
        return (
            transition.reshape(*batch, states, actions, states),
            reward.reshape(*batch, states, actions),
        )
