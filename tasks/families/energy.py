r"""Energy management: store or use energy, with an unknown success probability.

Energy s ∈ {0, ..., E}. Actions 0 and 1 are two identical ways to *charge*: s moves to
min(s+1, E) with probability p, else stays; reward -c. Action 2 is *work*: s moves to
max(s-1, 0) with probability p, else stays; reward s/E. Each task draws its own
p ~ U(p_min, p_max) and starts in a uniformly random state.

In the POMDP, a symbol shows the true energy with probability q and each other level
with probability (1 - q)/E, also before the first action. The APOMDP has K such models:
the nominal one, and perturbations of its rows. The two charge actions are one action
with two names and stay identical in every model.

Source: Zhang, Aghaei, Saghafian (2026) for the task and E = 9. Their cost, range of p,
discount and initial state are not public. We chose the defaults c = 0.05,
p ~ U(0.2, 0.9), discount 0.95 and a uniform start to fit the random and in-context rows
of their first figure; q = 0.8, α = 0.5, the radius and the concentration are also ours.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.storage.checks import check_finite
from sdm.tasks.ambiguity import check_ambiguity, check_met, perturbed_models
from sdm.tasks.family import (
    SET_KEY,
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    Split,
    WeightedParams,
)
from sdm.tasks.models import APOMDP, MDP, POMDP, check_count
from sdm.tasks.registry import register
from sdm.tasks.transitions import dense
from sdm.tasks.truncated_beta import truncated_beta_mean

SURE = 1e-9  # smallest distance of candidates for p from 0 and 1
POINTS = 141  # candidates for p: on the default range, in steps of 0.005


@register
@dataclass(frozen=True)
class EnergyFamily(Family):
    """Energy tasks that differ in p, the probability that a move succeeds.

    Attributes:
        p_min: smallest success probability p, in [0, 1].
        p_max: largest success probability p, in [0, 1].
        max_energy: largest energy level E, for E + 1 states.
        charge_cost: cost c of a charge action.
        discount: discount factor per stage, in [0, 1].
        q: probability that the observation is the true energy (pomdp, apomdp).
        models: size K of an ambiguity set; the first is the nominal model (apomdp).
        alpha: weight of the worst model, in [0, 1] (apomdp).
        radius: largest KL divergence of a model to the nominal one, in nats (apomdp).
        concentration: concentration of the Dirichlet distributions that perturb rows
            (apomdp).

    Example:
        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import EnergyFamily
        >>> tasks = EnergyFamily(max_energy=4).mdp(jnp.array([0.3, 0.6, 0.9]))
        >>> tasks.transition.shape  # three tasks with p = 0.3, 0.6 and 0.9
        (3, 5, 3, 5)

    """

    p_min: float = 0.2
    p_max: float = 0.9
    max_energy: int = 9
    charge_cost: float = 0.05
    discount: float = 0.95
    q: float = 0.8
    models: int = field(default=5, metadata={"option": "--K"})
    alpha: float = 0.5
    radius: float = 1.0
    concentration: float = 1.0

    name: ClassVar[str] = "energy"
    goal: ClassVar[str] = "Have much energy, because work pays more with more energy."
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp", "pomdp", "apomdp"})
    defaults: ClassVar[Defaults] = Defaults(observes_reward=frozenset({"mdp"}))
    counts: ClassVar[int] = 2  # successful and failed moves
    charge: ClassVar[tuple[int, ...]] = (0, 1)
    work: ClassVar[int] = 2
    actions: ClassVar[int] = 3

    def __post_init__(self) -> None:
        """Raise `ValueError` for an invalid range, size, discount or ambiguity set."""
        shares = (("p_min", self.p_min), ("p_max", self.p_max), ("q", self.q))
        for name, value in shares:
            if not 0 <= value <= 1:
                raise ValueError(f"{name} = {value:g}: must lie between 0 and 1")
        if self.p_min > self.p_max:
            raise ValueError(
                f"p_min = {self.p_min:g} is larger than p_max = {self.p_max:g}"
            )
        check_count("max_energy", self.max_energy, 1)
        check_finite("charge_cost", self.charge_cost)
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount = {self.discount:g}: must lie between 0 and 1")
        check_ambiguity(self.models, self.radius, self.concentration, self.alpha)

    @property
    def states(self) -> int:
        """Number of energy levels, E + 1."""
        return self.max_energy + 1

    @property
    def spaces(self) -> Spaces:
        """The state, and the symbol that shows it, have one component, `energy`."""
        return Spaces(
            state=(Component("energy", self.states),),
            actions=("charge", "charge too", "work"),
            duplicates=(self.charge,),
            hidden_rewards=(
                -self.charge_cost,
                *(level / self.max_energy for level in range(self.states)),
            ),
        )

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample p of each task; see `TaskFamily.parameters`."""

        def one(index: Array) -> Array:
            return jax.random.uniform(
                jax.random.fold_in(key, index), minval=self.p_min, maxval=self.p_max
            )

        return {"p": jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))}

    def model(self, params: Params, kind: Kind) -> MDP | POMDP | APOMDP:
        """Return the models of tasks with success probabilities `params["p"]`."""
        p = params["p"]
        if kind == "apomdp":
            return self.apomdp(params[SET_KEY], p)[0]
        return self.mdp(p) if kind == "mdp" else self.pomdp(p)

    def divergence(self, params: Params, model: APOMDP) -> Float[Array, "B K"]:
        """Return the mean over distinct rows: one charge action, work, and symbols."""
        return self.apomdp(params[SET_KEY], params["p"])[1]

    def prior(self) -> WeightedParams:
        """Return the centres of 141 cells of the range of p with equal weights."""
        cells = (np.arange(POINTS) + 0.5) / POINTS
        values = self.p_min + (self.p_max - self.p_min) * cells
        # A candidate p of 0 or 1 would give some transitions a likelihood of zero.
        p = jnp.asarray(np.clip(values, SURE, 1 - SURE), jnp.result_type(float))
        return WeightedParams({"p": p}, jnp.full(POINTS, 1 / POINTS, p.dtype))

    def tally(
        self,
        state: Int[np.ndarray, "*B"],
        action: Int[np.ndarray, "*B"],
        following: Int[np.ndarray, "*B"],
    ) -> Int[np.ndarray, "*B 2"]:
        """Count successes and failures among moves that could change the state."""
        working = action == self.work
        could = np.where(working, state > 0, state < self.max_energy)
        did = could & (state != following)
        return np.stack([did, could & ~did], axis=-1).astype(np.int64)

    def posterior_mean(self, counts: Int[np.ndarray, "*B 2"]) -> Params:
        """Return the mean of the Beta posterior of p, truncated to its range."""
        won, lost = 1.0 + counts[..., 0], 1.0 + counts[..., 1]
        mean = truncated_beta_mean(won, lost, self.p_min, self.p_max)
        return {"p": jnp.asarray(mean, jnp.result_type(float))}

    def mdp(self, p: Float[Array, "*B"]) -> MDP:
        """Return fully observed tasks with success probabilities `p`."""
        level = jnp.arange(self.states)
        up = jax.nn.one_hot(jnp.minimum(level + 1, self.max_energy), self.states)
        down = jax.nn.one_hot(jnp.maximum(level - 1, 0), self.states)
        alone = (None,) * p.ndim  # all tasks share these arrays
        moved = jnp.stack([up, up, down], axis=1).astype(p.dtype)[alone]  # [S, A, S]
        stayed = jnp.eye(self.states, dtype=p.dtype)[:, None, :][alone]
        chance = p[..., None, None, None]
        pay = (level / self.max_energy).astype(p.dtype)
        cost = jnp.full_like(pay, -self.charge_cost)
        reward = jnp.stack([cost, cost, pay], axis=-1)
        shape = (*p.shape, self.states)
        return MDP(
            transition=chance * moved + (1 - chance) * stayed,
            reward=jnp.broadcast_to(reward, (*shape, self.actions)),
            initial=jnp.full(shape, 1 / self.states, p.dtype),
            discount=self.discount,
        )

    def sample(
        self, key: Key[Array, ""], n: int, *, first: int | Int[Array, ""] = 0
    ) -> MDP:
        """Sample fully observed tasks `first`, ..., `first + n - 1` as one batch."""
        return self.mdp(self.parameters(key, n, split="train", first=first)["p"])

    def pomdp(self, p: Float[Array, "*B"]) -> POMDP:
        """Return partially observed tasks with success probabilities `p`."""
        mdp, seen = self.mdp(p), self._seen(p)
        return POMDP(
            transition=mdp.transition,
            observation=self._of_every_action(seen),
            reward=mdp.reward,
            initial=mdp.initial,
            discount=self.discount,
            initial_observation=seen,
        )

    def _seen(self, p: Float[Array, "*B"]) -> Float[Array, "*B S O"]:
        """Return Z(o | s), which shows the true energy with probability q."""
        same = jnp.eye(self.states, dtype=p.dtype)
        seen = self.q * same + (1 - self.q) / self.max_energy * (1 - same)
        return jnp.broadcast_to(seen, (*p.shape, *seen.shape))

    def _of_every_action(
        self, seen: Float[Array, "*B S O"]
    ) -> Float[Array, "*B A S O"]:
        """Return Z(o | s', a), which is independent of the action."""
        return jnp.repeat(seen[..., None, :, :], self.actions, axis=-3)

    def apomdp(
        self, keys: Key[Array, " B"], p: Float[Array, " B"]
    ) -> tuple[APOMDP, Float[Array, "B K"]]:
        """Return ambiguous tasks whose nominal model has success probability `p`.

        Args:
            keys: one random key per task, for the perturbations.
            p: success probabilities of the nominal models.

        Returns:
            The tasks, and the divergence of each model to its nominal one, in nats.

        Raises:
            AmbiguityError: if the radius cannot be met; not raised while JAX traces.

        """
        tasks, divergence = self._apomdp(keys, p)
        check_met(divergence, self.radius, self.concentration)
        return tasks, divergence

    @partial(jax.jit, static_argnums=0)
    def _apomdp(
        self, keys: Key[Array, " B"], p: Float[Array, " B"]
    ) -> tuple[APOMDP, Float[Array, "B K"]]:
        """Return the tasks and divergences, which are NaN if no draw met the radius."""
        nominal = self.pomdp(p)
        seen = self._seen(p)
        distinct = np.asarray([self.charge[0], self.work])
        others = jax.vmap(lambda key: jax.random.split(key, self.models - 1))(keys)
        (moves, shown), far = perturbed_models(
            others,
            (dense(nominal.transition)[:, :, distinct], seen),
            radius=self.radius,
            concentration=self.concentration,
        )
        both_charges = np.asarray([0, 0, 1])
        moves, shown = (
            jnp.concatenate([first[:, None], more], axis=1)
            for first, more in (
                (dense(nominal.transition), moves[:, :, :, both_charges]),
                (seen, shown),
            )
        )
        tasks = APOMDP(
            transition=moves,
            observation=self._of_every_action(shown),
            reward=nominal.reward,
            initial=nominal.initial,
            alpha=self.alpha,
            discount=self.discount,
            initial_observation=shown,
        )
        return tasks, jnp.pad(far, ((0, 0), (1, 0)))
