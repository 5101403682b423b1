"""Families whose published model generates logs, and gives the truth about policies.

The behavior policy is the family's `expert()`, which sees the whole state. The logs
have what arrival in a state pays (`arrival_rewards()`), as records of patients do, and
can lack components of the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from sdm.data.logs import NOTHING, Logs
from sdm.experiments.spec import ExperimentError
from sdm.solvers_jax import solve
from sdm.solvers_jax.policy_evaluation import evaluate_policy
from sdm.tasks.models import MDP
from sdm.tasks.transition_lists import sparse
from sdm.tasks.transitions import is_sparse

_exact = eqx.filter_jit(evaluate_policy)
NEEDED = ("published", "expert", "arrival_rewards")


@dataclass(frozen=True)
class LoggedWorld:
    """A model in which an expert's decisions are logged.

    Attributes:
        model: the model, without a batch axis.
        expert: π(a | s) of the behavior policy.
        arrival: what arrival in each state pays.
        seen: index of the observation of each state.
        observations: names of the observations.
        actions: names of the actions.
        horizon: number of decisions T.

    """

    model: MDP
    expert: Float[np.ndarray, "S A"]
    arrival: Float[np.ndarray, " S"]
    seen: Int[np.ndarray, " S"]
    observations: tuple[str, ...]
    actions: tuple[str, ...]
    horizon: int

    @cached_property
    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Possible next states [S, A, N], and their cumulative probabilities."""
        own: Any = self.model.transition
        lists: Any = own if is_sparse(own) else sparse(own)
        total = np.cumsum(np.asarray(lists.probabilities, float), -1)
        return np.asarray(lists.successors), total / total[..., -1:]

    @cached_property
    def ended(self) -> Bool[np.ndarray, " S"]:
        """States from which nothing is paid, and only such states follow at once."""
        successors, total = self.lists
        positive = np.diff(total, axis=-1, prepend=0) > 0
        silent = (np.asarray(self.model.reward) == 0).all(-1)
        here = np.arange(len(silent))[:, None, None]
        absorbing = silent & (~positive | (successors == here)).all((1, 2))
        leads = (~positive | absorbing[successors]).all((1, 2))
        return absorbing | (silent & leads)

    def value(self, policy: Float[np.ndarray, "T O A"]) -> float:
        """Return the exact value of a policy that sees the observations."""
        return float(_exact(self.model, jnp.asarray(policy[:, self.seen])))

    @cached_property
    def references(self) -> dict[str, float]:
        """Exact values of the expert and of the best plan, which see the state."""
        policy = jnp.broadcast_to(
            jnp.asarray(self.expert), (self.horizon, *self.expert.shape)
        )
        best = solve(self.model, horizon=self.horizon)
        return {
            "expert": float(_exact(self.model, policy)),
            "optimal": float(best.value),
        }

    def logs(self, episodes: int, seed: int) -> Logs:
        """Return logged episodes of the expert, which end with the last reward.

        Args:
            episodes: number of episodes, N.
            seed: random seed.

        """
        generator = np.random.default_rng(seed)
        successors, total = self.lists
        chosen = np.cumsum(self.expert, -1)
        chosen /= chosen[:, -1:]
        first = np.cumsum(np.asarray(self.model.initial, float))
        state = _drawn(first[None] / first[-1], generator.random(episodes))
        shape = (episodes, self.horizon)
        seen = np.full((episodes, self.horizon + 1), NOTHING)
        acted, paid = np.full(shape, NOTHING), np.zeros(shape)
        done = self.ended[state]
        seen[:, 0] = self.seen[state]
        for t in range(self.horizon):
            going = np.flatnonzero(~done)
            s = state[going]
            a = _drawn(chosen[s], generator.random(len(s)))
            n = _drawn(total[s, a], generator.random(len(s)))
            state[going] = successors[s, a, n]
            acted[going, t] = a
            paid[going, t] = self.arrival[state[going]]
            seen[going, t + 1] = self.seen[state[going]]
            done = self.ended[state]
        return Logs(
            observation=seen,
            action=acted,
            reward=paid,
            done=done,
            task=np.zeros(episodes, np.int64),
            probability=None,
            observations=self.observations,
            actions=self.actions,
            tasks=("0",),
        )


def _drawn(
    total: Float[np.ndarray, "#N C"], uniform: Float[np.ndarray, " N"]
) -> Int[np.ndarray, " N"]:
    """Return categories by inverse transform of cumulative probabilities."""
    return (total <= uniform[:, None]).sum(-1)


def logged_world(family: Any, horizon: int, unseen: Sequence[str] = ()) -> LoggedWorld:
    """Return the world of a family's published model.

    Args:
        family: a task family with `published()`, `expert()` and `arrival_rewards()`.
        horizon: number of decisions T.
        unseen: names of components of the state that the logs lack.

    Raises:
        ExperimentError: if the family has no such model, or no such component.

    """
    for name in NEEDED:
        if not hasattr(family, name):
            raise ExperimentError(
                f"family `{family.name}`: has no `{name}()`, which logs need",
                "choose `sepsis` or `icu-sepsis`",
            )
    components = family.spaces.state
    names = [each.name for each in components]
    for name in unseen:
        if name not in names:
            raise ExperimentError(
                f"family `{family.name}`: unknown component `{name}`",
                f"components are {', '.join(names)}",
            )
    kept = [i for i, name in enumerate(names) if name not in unseen]
    sizes = tuple(each.size for each in components)
    levels = np.indices(sizes).reshape(len(sizes), -1)
    left = tuple(sizes[i] for i in kept)
    seen = np.ravel_multi_index(tuple(levels[kept]), left)
    return LoggedWorld(
        model=family.published(),
        expert=np.asarray(family.expert(), float),
        arrival=np.asarray(family.arrival_rewards(), float),
        seen=seen,
        observations=tuple(map(str, range(int(np.prod(left))))),
        actions=tuple(family.spaces.actions),
        horizon=horizon,
    )
