r"""Stochastic bandits with K arms, whose rewards are random and observed.

In each round, the agent chooses an arm and is paid a random reward: Bernoulli, Gaussian
or Gamma (`tasks.arm_laws`). Tasks differ in the means μ(a). With a separation Δ > 0,
a uniformly random arm has mean 1/2 + Δ/2 and the others 1/2 - Δ/2; with Δ = 0, every
mean is uniform on [mean_min, mean_max], or has the distribution Beta(c, c) on [0, 1].
Krishnamurthy et al. (2024) have a hard instance, K = 5 and Δ = 0.2, and an easy one,
K = 4 and Δ = 0.5.

Bandit feedback shows the reward of the chosen arm; full information also what the other
arms would have paid, with Gaussian and Gamma rewards rounded to `levels` values.

Means can change (non-stationary bandits): after each round, all are drawn anew with
probability `change`. From the round `rounds` on, they keep their last values.

As a decision process, a state is (n, v): the number n of the round, from 0 and capped
at its last value, and the rewards v of the last round of all arms. The first component
has one value if means are constant and feedback is that of a bandit, and the second one
exists with full information only. The action does not affect the next state, and an
optimal policy takes the arm of the highest mean in each round.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy import special

from sdm.storage.checks import check_choice, check_finite, check_positive
from sdm.tasks.arm_laws import ArmLaw, arm_laws, chances
from sdm.tasks.arm_rewards import ArmRewards, levels_of
from sdm.tasks.family import (
    Component,
    Defaults,
    Family,
    Kind,
    Params,
    Spaces,
    Split,
    WeightedParams,
)
from sdm.tasks.models import MDP, check_count
from sdm.tasks.ranges import check_between
from sdm.tasks.registry import register
from sdm.tasks.truncated_beta import truncated_beta_mean

FEEDBACK = ("bandit", "full")
MOST_STATES = 512  # of a table of transitions
LEAST_LOG = -1e5  # in place of the logarithm of 0


@register
@dataclass(frozen=True)
class BanditFamily(Family):
    """Bandits that differ in the means of their arms.

    Attributes:
        arms: number K of arms.
        separation: difference Δ between the best mean and the others, around 1/2; 0 for
            independent means.
        mean_min: smallest mean, if the separation is 0.
        mean_max: largest mean, if the separation is 0.
        mean_concentration: c of the distribution Beta(c, c) of the means, if the
            separation is 0; 1 is uniform, below 1 most arms pay nearly always or
            nearly never. Values other than 1 need means from 0 to 1.
        law: law of the rewards: bernoulli, gaussian or gamma.
        noise: standard deviation of Gaussian and Gamma rewards.
        feedback: rewards that the agent sees: its own (`bandit`), or those of all arms
            (`full`).
        levels: values to which Gaussian and Gamma rewards are rounded, with full
            feedback.
        change: probability per round that all means are drawn anew.
        rounds: round after which means no longer change, if `change` is above 0.

    """

    arms: int = 5
    separation: float = 0.2
    mean_min: float = 0.0
    mean_max: float = 1.0
    mean_concentration: float = 1.0
    law: str = "bernoulli"
    noise: float = 0.3
    feedback: str = "bandit"
    levels: int = 5
    change: float = 0.0
    rounds: int = 100

    name: ClassVar[str] = "bandit"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp"})
    defaults: ClassVar[Defaults] = Defaults(
        horizon=100,
        trajectories=3,
        test_trajectories=10,
        support=0,
        observes_reward=frozenset({"mdp"}),
        stationary=True,
    )

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("arms", self.arms, 2)
        check_count("levels", self.levels, 2)
        check_count("rounds", self.rounds, 1)
        check_between(self, ("separation", "change"))
        check_choice("law", self.law, arm_laws())
        check_choice("feedback", self.feedback, FEEDBACK)
        for name in ("mean_min", "mean_max", "noise"):
            if getattr(self, name) is not None:
                check_finite(name, getattr(self, name))
        low, high = self.range
        if not low <= high:
            raise ValueError(f"mean_min = {low:g} is larger than mean_max = {high:g}")
        self._check_concentration()
        self.reward_law.check(low, high, self.noise)
        if (states := self.numbers * self.outcomes) > MOST_STATES:
            raise ValueError(
                f"a table of transitions must have at most {MOST_STATES} states, found "
                f"{states}: {self.numbers} rounds, {len(self.values)} rewards of each "
                f"of {self.arms} arms; lower rounds, levels or arms"
            )

    def _check_concentration(self) -> None:
        """Raise `ValueError` for a concentration that is out of range, or not used."""
        name, c = "mean_concentration", self.mean_concentration
        check_positive(name, c)
        if c != 1 and self.separation:
            raise ValueError(
                f"{name} = {c:g}: has no effect with separation = {self.separation:g}; "
                "pass a separation of 0"
            )
        if c != 1 and self.range != (0.0, 1.0):
            raise ValueError(
                f"{name} = {c:g}: needs mean_min = 0 and mean_max = 1, found "
                f"{self.mean_min:g} and {self.mean_max:g}"
            )

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest possible mean."""
        if self.separation:
            return 0.5 - self.separation / 2, 0.5 + self.separation / 2
        return self.mean_min, self.mean_max

    @property
    def reward_law(self) -> ArmLaw:
        """Law of an arm's rewards."""
        return arm_laws()[self.law]

    @property
    def shows_all(self) -> bool:
        """Whether observations show the rewards of all arms."""
        return self.feedback == "full"

    @property
    def values(self) -> tuple[float, ...]:
        """All possible rewards; () if they are continuous."""
        if not self.shows_all:
            return self.reward_law.values
        return tuple(self.reward_law.grid(*self.range, self.noise, self.levels))

    @property
    def outcomes(self) -> int:
        """Number of distinct rewards of all arms that an observation can show."""
        return len(self.values) ** self.arms if self.shows_all else 1

    @property
    def numbers(self) -> int:
        """Number of distinct numbers of rounds in an observation."""
        if self.change:
            return max(self.rounds, 1 + self.shows_all)
        return 1 + self.shows_all  # the first round shows no rewards yet

    @property
    def spaces(self) -> Spaces:
        """The state has the round and, with full information, the last rewards."""
        number = Component("next", 1, ("round",))
        if self.change:
            number = Component("round", self.numbers)
        elif self.shows_all:
            number = Component("round", 2, ("first", "later"))
        last = [
            Component(f"paid by {a}", len(self.values))
            for a in range(self.arms if self.shows_all else 0)
        ]
        return Spaces(
            state=(number, *last),
            actions=tuple(f"arm {a}" for a in range(self.arms)),
            rewards=self.values,
            random_rewards=True,
        )

    def parameters(
        self,
        key: Key[Array, ""],
        n: int,
        *,
        split: Split,
        first: int | Int[Array, ""] = 0,
    ) -> Params:
        """Sample the means of each task; see `TaskFamily.parameters`."""
        rounds = self.rounds if self.change else 1
        number = jnp.arange(rounds, dtype=jnp.int32)

        def one(index: Array) -> Array:
            own = jax.random.fold_in(key, index)
            means, new, best = jax.vmap(
                lambda r: self._draw(jax.random.fold_in(own, r))
            )(number)
            if self.separation:
                low, high = self.range
                is_best = jax.nn.one_hot(best, self.arms, dtype=means.dtype)
                means = low + (high - low) * is_best
            since = jnp.where((new < self.change) & (number > 0), number, 0)
            return means[jax.lax.cummax(since)]

        return {"mean": jax.vmap(one)(first + jnp.arange(n, dtype=jnp.int32))}

    def _draw(self, key: Key[Array, ""]) -> tuple[Array, Array, Array]:
        """Return independent means, a number that decides on a change, and an arm."""
        mean, new, best = jax.random.split(key, 3)
        low, high = self.range
        c, arms = self.mean_concentration, (self.arms,)
        return (
            jax.random.uniform(mean, arms, minval=low, maxval=high)
            if c == 1
            else jax.random.beta(mean, c, c, arms),
            jax.random.uniform(new),
            jax.random.randint(best, (), 0, self.arms, jnp.int32),
        )

    def prior(self) -> WeightedParams:
        """Return the K possible tasks if they are finitely many, else sampled ones."""
        if not self.separation or self.change:
            return super().prior()
        low, high = self.range
        kind = jnp.result_type(float)
        mean = jnp.where(jnp.eye(self.arms, dtype=bool), high, low).astype(kind)
        weight = jnp.full(self.arms, 1 / self.arms, kind)
        return WeightedParams({"mean": mean[:, None]}, weight)

    def model(self, params: Params, kind: Kind) -> MDP:
        """Return the models of tasks with means `params["mean"]` of [*B, rounds, K]."""
        mean = params["mean"]
        kind_of, batch = mean.dtype, mean.shape[:-2]
        numbers, outcomes = self.numbers, self.outcomes
        states = numbers * outcomes
        here = np.minimum(np.arange(numbers), mean.shape[-2] - 1)
        by_number = mean[..., here, :]  # [*B, R, K]
        following = np.minimum(np.arange(numbers) + 1, numbers - 1)
        moves = jnp.asarray(np.eye(numbers)[following], kind_of)  # [R, R']
        expected, shown = by_number, jnp.ones((*batch, numbers, 1), kind_of)
        if self.shows_all:
            chance = chances(self.reward_law, by_number, self.noise, self.values)
            expected = chance @ jnp.asarray(self.values, kind_of)
            for arm in range(self.arms):
                joint = shown[..., :, None] * chance[..., arm, None, :]
                shown = joint.reshape(*batch, numbers, -1)
        alone = (None,) * len(batch)
        joint = moves[(*alone, ..., None)] * shown[..., :, None, :]  # [*B, R, R', V]
        row = joint.reshape(*batch, numbers, states)
        every = jnp.repeat(row, outcomes, axis=-2)[..., :, None, :]
        return MDP(
            transition=jnp.repeat(every, self.arms, axis=-2),
            reward=jnp.repeat(expected, outcomes, axis=-2),
            initial=jnp.broadcast_to(
                jnp.asarray(np.eye(states)[0], kind_of), (*batch, states)
            ),
            discount=1.0,
            law=ArmRewards(
                by_number,
                self.law,
                self.noise,
                self.values if self.shows_all else (),
            ),
        )

    def shown(self, observation: Int[Array, "*B"]) -> Float[Array, "*B K"]:
        """Return the last reward of each arm, which the observation shows."""
        level = levels_of(observation, len(self.values), self.arms)
        return jnp.asarray(self.values, jnp.result_type(float))[level]

    def sample_mean(
        self,
        key: Key[Array, "*B"],
        count: Float[Array, "*B K"],
        total: Float[Array, "*B K"],
    ) -> Float[Array, "*B K"]:
        """Draw a mean for each arm by the law's posterior; see `tasks.arm_laws`."""
        return self.reward_law.sample_mean(key, count, total, self.noise)

    def not_counted(self) -> str | None:
        """Return why numbers of successes and failures do not suffice to act on."""
        if self.law != "bernoulli":
            return f"rewards must be 0 or 1, and law = {self.law!r}"
        if self.change:
            return f"means must be constant, and change = {self.change:g}"
        if self.shows_all:
            return "the agent must see its own reward only, and feedback = 'full'"
        return None

    def predictive(
        self, won: Int[np.ndarray, "N K"], lost: Int[np.ndarray, "N K"]
    ) -> Float[np.ndarray, "N K"]:
        """Return each arm's probability of a reward of 1, given what all arms paid.

        With independent means, it is the mean of a truncated Beta distribution; with a
        separation, it weighs the K possible best arms.
        """
        low, high = self.range
        if not self.separation:
            size = 1 + max(won.max(), lost.max())
            one = self.mean_concentration + np.arange(0.0, size)
            a, b = np.meshgrid(one, one, indexing="ij")
            return truncated_beta_mean(a, b, low, high)[won, lost]
        best, other = (
            np.maximum(special.xlogy(won, p) + special.xlogy(lost, 1 - p), LEAST_LOG)
            for p in (high, low)
        )
        log = other.sum(-1, keepdims=True) - other + best
        return low + (high - low) * special.softmax(log, axis=-1)
