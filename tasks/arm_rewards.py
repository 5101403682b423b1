"""The random rewards of a batch of bandits, as a law of a model's rewards."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.tasks.arm_laws import arm_laws, chances


def levels_of(
    observation: Int[Array, "*B"], values: int, arms: int
) -> Int[Array, "*B K"]:
    """Return the index of each arm's last reward, which an observation shows.

    Args:
        observation: observations, whose last components are the arms' rewards.
        values: number of values of a reward.
        arms: number of arms.

    """
    place = jnp.asarray(values ** np.arange(arms)[::-1], observation.dtype)
    place = place.reshape((1,) * observation.ndim + (-1,))
    return observation[..., None] // place % values


class ArmRewards(eqx.Module):
    """Rewards that depend on the arm and the round.

    Attributes:
        mean: mean of each arm in each round.
        name: name of the law of a reward, in `arm_laws`.
        noise: standard deviation of a reward, if the law needs it.
        values: values to which rewards are rounded and which the next state shows; ()
            if the next state shows no rewards.

    """

    mean: Float[Array, "*B R K"]
    name: str = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    values: tuple[float, ...] = eqx.field(static=True)

    @property
    def _outcomes(self) -> int:
        """Number of states in each round."""
        arms: int = self.mean.shape[-1]
        return len(self.values) ** arms if self.values else 1

    def draw(
        self,
        task: Int[Array, "B 1"],
        state: Int[Array, "B N"],
        action: Int[Array, "B N"],
        following: Int[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> Float[Array, "B N"]:
        """Draw the rewards, or read them in the next states that show them."""
        if self.values:
            every = levels_of(following, len(self.values), self.mean.shape[-1])
            level = jnp.take_along_axis(every, action[..., None], axis=-1)[..., 0]
            return jnp.asarray(self.values, self.mean.dtype)[level]
        mean = self.mean[task, state // self._outcomes, action]
        return arm_laws()[self.name].draw(key, mean, self.noise)

    def log_likelihood(
        self,
        state: Int[Array, "N T"],
        action: Int[Array, "N T"],
        reward: Float[Array, "N T"],
    ) -> Float[Array, "G N T"]:
        """Return the log-likelihood of rewards, given the states.

        If states show rewards, only the last reward of an episode adds information.
        """
        law, mean = arm_laws()[self.name], self.mean[:, state // self._outcomes, action]
        if not self.values:
            return law.log_density(reward[None], mean, self.noise)
        grid = jnp.asarray(self.values, mean.dtype)
        level = jnp.abs(reward[..., None] - grid[None, None]).argmin(-1)
        chance = chances(law, mean, self.noise, self.values)  # [G, N, T, L]
        own = jnp.take_along_axis(chance, level[None, ..., None], axis=-1)[..., 0]
        last = jnp.arange(reward.shape[-1]) == reward.shape[-1] - 1
        return jnp.where(last[None, None], jnp.log(own), 0)
