"""A decision model as a Gymnasium environment: one task, one episode at a time.

For learners from elsewhere, which want an environment. To play many episodes of many
tasks, `sdm.tasks.rollout` is thousands of times faster.
"""

import os
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Discrete

from sdm.tasks.belief import true_model
from sdm.tasks.family import SET_KEY, Split, poses
from sdm.tasks.model_files import load_model
from sdm.tasks.models import (
    APOMDP,
    MDP,
    POMDP,
    Model,
    RobustMDP,
    check_horizon,
    check_model,
)
from sdm.tasks.registry import load_family
from sdm.tasks.rollout import task_keys

Action = int | np.int64


class DecisionEnv(gymnasium.Env[np.int64, Action]):
    """Episodes of T decisions in one model.

    An observation is the state of an MDP and a symbol of a POMDP; where a POMDP shows
    nothing before the first action, one more symbol, the last, says so. Of several
    models, the first runs. The reward is the expected one, r(s, a), undiscounted. An
    episode is `terminated` with its last decision: the model ends there, it is not cut
    short. `info` has the `stage` and the hidden `state`.

    Attributes:
        model: what is played, with everything an agent may know of it.
        horizon: number of decisions T.

    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, model: Model | str | os.PathLike[str], *, horizon: int = 10
    ) -> None:
        """Play a model, or the one in a file as `load_model` reads it.

        Raises:
            ValueError: if model or horizon is not well posed, or a batch.

        """
        check_horizon(horizon)
        self.horizon, self.render_mode = horizon, None
        if isinstance(model, str | os.PathLike):
            model = load_model(model)
        check_model(model)
        if np.ndim(model.reward) != 2:
            raise ValueError(
                f"reward has shape {np.shape(model.reward)}: one task is played, so it "
                "must be [S, A]"
            )
        self._take(model)
        self.action_space = Discrete(self._reward.shape[1])
        seen = self._observation
        if seen is None:
            self.observation_space = Discrete(self._reward.shape[0])
        else:
            blank = self._first_observation is None
            self.observation_space = Discrete(seen.shape[-1] + blank)
        self._stage, self._state = horizon, 0  # over, until `reset`

    def _take(self, model: Model) -> None:
        """Play `model` from now on."""
        self.model, world = model, _world(model)
        self._transition = _rows(world.transition)
        self._initial, self._reward = _rows(world.initial), np.asarray(world.reward)
        self._observation = self._first_observation = None
        if isinstance(world, POMDP):
            self._observation = _rows(world.observation)
            if world.initial_observation is not None:
                self._first_observation = _rows(world.initial_observation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Begin an episode; `options` are not used."""
        super().reset(seed=seed)
        self._stage, self._state = 0, self._draw(self._initial)
        if self._observation is None:
            seen = np.int64(self._state)
        elif self._first_observation is None:
            seen = np.int64(self._observation.shape[-1])
        else:
            seen = np.int64(self._draw(self._first_observation[self._state]))
        return seen, self._info()

    def step(
        self, action: Action
    ) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Decide once.

        Raises:
            ValueError: if there is no such action.
            RuntimeError: if the episode is over or was not begun.

        """
        if not self.action_space.contains(action):
            raise ValueError(f"action = {action!r}: must be in {self.action_space}")
        if self._stage >= self.horizon:
            raise RuntimeError("the episode is over: call reset() first")
        action = int(action)
        paid = float(self._reward[self._state, action])
        self._state = self._draw(self._transition[self._state, action])
        self._stage += 1
        seen = np.int64(self._state)
        if self._observation is not None:
            seen = np.int64(self._draw(self._observation[action, self._state]))
        return seen, paid, self._stage == self.horizon, False, self._info()

    def _draw(self, row: np.ndarray) -> int:
        return int(self.np_random.choice(len(row), p=row))

    def _info(self) -> dict[str, Any]:
        return {"stage": self._stage, "state": self._state}


class TaskEnv(DecisionEnv):
    """Tasks of a family; a new one with every reset.

    `info` has the task's `parameters` too.
    """

    def __init__(
        self,
        *,
        family: str = "energy",
        kind: str = "mdp",
        horizon: int = 10,
        split: Split = "train",
        **options: Any,
    ) -> None:
        """Play tasks of a family.

        Args:
            family: a reference, as `sdm.tasks.load_family` takes it.
            kind: mdp, pomdp or apomdp.
            horizon: number of decisions T.
            split: whether tasks are those to train on or those to test with.
            **options: of the family.

        Raises:
            ValueError: if there is no such family, or it does not pose this kind.

        """
        self.family = load_family(family, options)
        self.kind, self.split = poses(self.family, kind), split
        super().__init__(self._task(0), horizon=horizon)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Begin an episode in a new task; `options` are not used."""
        if seed is not None:
            super().reset(seed=seed)
        self._take(self._task(int(self.np_random.integers(2**31))))
        return super().reset()

    def _task(self, number: int) -> Model:
        """Return the task that a number stands for."""
        most = self.family.available(self.split)
        index = 0 if most is None else number % most
        key = jax.random.key(number)
        params = dict(self.family.parameters(key, 1, split=self.split, first=index))
        if self.kind == "apomdp":
            params[SET_KEY] = task_keys(key, 1)
        self._parameters = {
            name: np.asarray(value)[0].tolist()
            for name, value in params.items()
            if name != SET_KEY
        }
        batch = self.family.model(params, self.kind)
        return jax.tree.map(lambda x: x[0] if jnp.ndim(x) else x, batch)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "parameters": self._parameters}


class EnergyEnv(TaskEnv):
    """Energy tasks; a new one with every reset, unless its p is given.

    `info` has the `p` of the task too.
    """

    def __init__(
        self,
        *,
        kind: str = "mdp",
        horizon: int = 10,
        p: float | None = None,
        **options: Any,
    ) -> None:
        """Play energy tasks.

        Args:
            kind: mdp, pomdp or apomdp.
            horizon: number of decisions T.
            p: success probability of a move; None to draw it with every reset.
            **options: of the family: q, models, alpha, …

        Raises:
            ValueError: if one of these makes no task.

        """
        if p is not None:
            options |= {"p_min": p, "p_max": p}
        super().__init__(family="energy", kind=kind, horizon=horizon, **options)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "p": self._parameters["p"]}


def _world(model: Model) -> MDP | POMDP:
    """The model that runs."""
    if isinstance(model, APOMDP):
        return true_model(model)
    if isinstance(model, RobustMDP):
        return MDP(model.transition[0], model.reward, model.initial, model.discount)
    return model


def _rows(probability: object) -> np.ndarray:
    """Rows that sum to one in double precision, as NumPy's generator wants them."""
    exact = np.asarray(probability, np.float64)
    return exact / exact.sum(-1, keepdims=True)
