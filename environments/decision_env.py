"""Decision models as Gymnasium environments: one task and one episode at a time.

Use them to train other libraries' learners. To simulate many episodes of many tasks,
`sdm.tasks.rollout` is thousands of times faster.
"""

import dataclasses
import os
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Discrete

from sdm.environments.played import played_as
from sdm.tasks.admissible import masked_rewards, with_mask
from sdm.tasks.family import SET_KEY, Split, poses
from sdm.tasks.model_files import load_model
from sdm.tasks.models import POMDP, Model, batch_shape, check_horizon, check_model
from sdm.tasks.registry import load_family
from sdm.tasks.reward_law import law_of, realised
from sdm.tasks.rollout import task_keys
from sdm.tasks.stages import at_stage, check_stages
from sdm.tasks.transitions import rows, take_tasks
from sdm.tasks.worlds import world_of

Action = int | np.int64


class DecisionEnv(gymnasium.Env[np.int64, Action]):
    """Episodes of T decisions in one model.

    An observation is the state of an MDP, the symbol of a POMDP, or the visible part of
    the state, with its symbol, in a model with mixed observability. If a POMDP has no
    observation before the first action, an additional symbol, the last, stands for it.
    The first of several candidate models generates episodes. The reward is the expected
    reward r(s, a), or drawn from the model's law of rewards, undiscounted. An episode
    is `terminated`, not truncated, with its last decision. `info` contains the `stage`
    and the hidden `state`.

    Attributes:
        model: the model, with all its candidates.
        horizon: number of decisions T.

    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, model: Model | str | os.PathLike[str], *, horizon: int = 10
    ) -> None:
        """Create an environment from a model or a file that `load_model` reads.

        Raises:
            ValueError: if the model or the horizon is invalid, or the model is a batch
                or for another number of stages.

        """
        check_horizon(horizon)
        self.horizon, self.render_mode = horizon, None
        task: Any = model
        if isinstance(model, str | os.PathLike):
            task = load_model(model)
        check_model(task)
        if batch_shape(task):
            raise ValueError(
                f"reward has shape {np.shape(task.reward)}: must be [S, A], for one "
                "task"
            )
        self._take(task)
        self.action_space = Discrete(self._world.reward.shape[-1])
        if self._shown is not None:
            self.observation_space = Discrete(int(self._shown.max()) + 1)
        elif self._symbols is None:
            self.observation_space = Discrete(len(self._initial))
        else:
            blank = self._first_observation is None
            self.observation_space = Discrete(self._symbols + blank)
        self._stage, self._state = horizon, 0  # no episode until `reset`

    def _take(self, model: Model) -> None:
        """Set the model of the next episodes."""
        check_stages(model, self.horizon)
        model = with_mask(model)
        true, self._shown = played_as(world_of(model))
        self.model = model
        paid = dataclasses.replace(true, reward=masked_rewards(true))
        self._world: Any = jax.tree.map(np.asarray, paid)
        self._initial = _rows(true.initial)
        self._symbols = self._first_observation = None
        if isinstance(true, POMDP):
            self._symbols = true.observation.shape[-1]
            if true.initial_observation is not None:
                self._first_observation = _rows(true.initial_observation)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start an episode; `options` are ignored."""
        super().reset(seed=seed)
        self._stage, self._state = 0, self._draw(self._initial)
        if self._symbols is None:
            seen = self._state_seen()
        elif self._first_observation is None:
            seen = np.int64(self._symbols)
        else:
            seen = np.int64(self._draw(self._first_observation[self._state]))
        return seen, self._info()

    def step(
        self, action: Action
    ) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Take an action.

        Returns:
            Observation, reward, terminated, truncated (always False) and info.

        Raises:
            ValueError: if the action is invalid, or not admissible in the state.
            RuntimeError: if no episode is running.

        """
        if not self.action_space.contains(action):
            raise ValueError(f"action = {action!r}: must be in {self.action_space}")
        if self._stage >= self.horizon:
            raise RuntimeError("the episode is over: call reset() first")
        action, world = int(action), at_stage(self._world, self._stage)
        paid = float(world.reward[self._state, action])
        if np.isneginf(paid):
            raise ValueError(
                f"action = {action}: not admissible in state {self._state}"
            )
        row, states = rows(world.transition, self._state, action)
        after = self._draw(_rows(row))
        before, self._state = (
            self._state,
            after if states is None else int(states[after]),
        )
        paid = self._paid(paid, before, action)
        self._stage += 1
        seen = self._state_seen()
        if self._symbols is not None:
            seen = np.int64(self._draw(_rows(world.observation[action, self._state])))
        return seen, paid, self._stage == self.horizon, False, self._info()

    def _paid(self, expected: float, before: int, action: int) -> float:
        """Return the reward of a decision, drawn if rewards are random."""
        if law_of(self.model) is None:
            return expected
        seed = int(self.np_random.integers(2**32))
        task, state, choice, after = (
            jnp.asarray([[x]], jnp.int32) for x in (0, before, action, self._state)
        )
        mean, key = jnp.asarray([[expected]]), jax.random.key(seed).reshape(1, 1)
        batch = take_tasks(self.model, None)
        paid = realised(batch, mean, task, state, choice, after, key)
        return float(paid[0, 0])

    def _state_seen(self) -> np.int64:
        """Return what an MDP's state shows: itself, or its visible part."""
        return np.int64(
            self._state if self._shown is None else self._shown[self._state]
        )

    def _draw(self, row: np.ndarray) -> int:
        return int(self.np_random.choice(len(row), p=row))

    def _info(self) -> dict[str, Any]:
        return {"stage": self._stage, "state": self._state}


class TaskEnv(DecisionEnv):
    """Environment of a family's tasks, with a new task at every reset.

    `info` also contains the task's `parameters`.
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
        """Create an environment of a family's tasks.

        Args:
            family: reference of the family, see `sdm.tasks.load_family`.
            kind: kind of model: mdp, pomdp or apomdp.
            horizon: number of decisions T.
            split: `train` for training tasks, `test` for test tasks.
            **options: options of the family.

        Raises:
            ValueError: if the family is unknown or does not support this kind.

        """
        self.family = load_family(family, options)
        self.kind, self.split = poses(self.family, kind), split
        super().__init__(self._task(0), horizon=horizon)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Start an episode in a new task; `options` are ignored."""
        if seed is not None:
            super().reset(seed=seed)
        self._take(self._task(int(self.np_random.integers(2**31))))
        return super().reset()

    def _task(self, number: int) -> Model:
        """Return the task of a random number."""
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
        return take_tasks(batch, 0)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "parameters": self._parameters}


class EnergyEnv(TaskEnv):
    """Environment of energy tasks, with a new p at every reset unless p is fixed.

    `info` also contains the `p` of the task.
    """

    def __init__(
        self,
        *,
        kind: str = "mdp",
        horizon: int = 10,
        p: float | None = None,
        **options: Any,
    ) -> None:
        """Create an environment of energy tasks.

        Args:
            kind: kind of model: mdp, pomdp or apomdp.
            horizon: number of decisions T.
            p: success probability of a move; None to sample it at every reset.
            **options: options of the family: q, models, alpha, …

        Raises:
            ValueError: if an argument is invalid.

        """
        if p is not None:
            options |= {"p_min": p, "p_max": p}
        super().__init__(family="energy", kind=kind, horizon=horizon, **options)

    def _info(self) -> dict[str, Any]:
        return {**super()._info(), "p": self._parameters["p"]}


def _rows(probability: object) -> np.ndarray:
    """Normalise rows in double precision, as NumPy's generator requires."""
    exact = np.asarray(probability, np.float64)
    return exact / exact.sum(-1, keepdims=True)
