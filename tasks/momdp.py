"""Mixed observability: models whose state has a visible and a hidden part.

The state is (x, y): the agent observes x, and not y (Ong, Png, Hsu, Lee, 2010,
*Planning under uncertainty for robotic tasks with mixed observability*). Two factors
give the transition law:

    P(x', y' | x, y, a) = P(x' | x, y, a) P(y' | x, y, a, x').

Models whose hidden part never changes have no second factor. Among them are K candidate
MDPs, one of which runs: see `hidden_mdp`.
"""

from dataclasses import fields
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.array_checks import (
    check_finite,
    check_rows,
    check_unit_interval,
    raise_first,
)
from sdm.tasks.host_checks import check_arrays, is_traced
from sdm.tasks.model_kinds import register_model
from sdm.tasks.models import Scalar

# The arrays of the dynamics, and their axes after the batch axes.
AXES = {
    "transition": "XYAN",
    "hidden_transition": "XYANY",
    "observation": "AXYO",
    "reward": "XYA",
    "initial": "XY",
    "initial_observation": "XYO",
}
LISTS = {"successors": "XAN", "admissible": "XA"}
DISTRIBUTIONS = tuple(name for name in AXES if name != "reward")


def _indices(value: Any) -> Any:
    """Convert whole numbers, which a file may store as floats, to indices."""
    if value is None or is_traced(value):
        return value
    given = np.asarray(value)
    if given.dtype.kind == "f" and (given == np.round(given)).all():
        given = given.astype(np.int32)
    return jnp.asarray(given, jnp.int32 if given.dtype.kind in "iu" else None)


@register_model
class MOMDP(eqx.Module):
    """Models with mixed observability, batched on their leading axes.

    X visible values, Y hidden values, N visible values that can follow. The tasks of a
    batch can share their dynamics and differ in `initial` only: then all other arrays
    have no batch axes. Such a batch is solved faster than separate tasks.

    Attributes:
        transition: P(x' | x, y, a) of the N listed successors.
        reward: expected reward r(x, y, a) of one decision.
        initial: distribution of the first x and y.
        discount: factor per stage, in [0, 1], common to the batch.
        successors: visible values that can follow x and a; with batch axes if they
            differ between tasks; None for all X values, in order. A value that is
            listed twice has the sum of the probabilities.
        hidden_transition: P(y' | x, y, a, x') of the N successors, the new y last; None
            if the hidden part never changes.
        observation: Z(o | x', y', a), observed in addition to x'; None for nothing
            more.
        initial_observation: Z_1(o | x, y), observed with the first x; None for nothing
            more.
        admissible: which actions can be chosen at each x; None for all.
        observes_reward: whether the agent observes its rewards r(x, y, a), which can
            tell y.

    """

    transition: Float[Array, "... X Y A N"]
    reward: Float[Array, "... X Y A"]
    initial: Float[Array, "*B X Y"]
    discount: Scalar
    successors: Int[Array, "... X A N"] | None = eqx.field(
        default=None, converter=_indices
    )
    hidden_transition: Float[Array, "... X Y A N Y"] | None = None
    observation: Float[Array, "... A X Y O"] | None = None
    initial_observation: Float[Array, "... X Y O"] | None = None
    admissible: Bool[Array, "... X A"] | None = None
    observes_reward: bool = eqx.field(default=False, static=True, converter=bool)

    @property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the batch axes; () for a single task."""
        return tuple(self.initial.shape[:-2])

    @property
    def shared(self) -> bool:
        """Whether the tasks of a batch share their dynamics."""
        return np.ndim(self.reward) == 3 and np.ndim(self.initial) > 2

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Numbers X, Y of visible and hidden values, A of actions, O of symbols."""
        *_, visible, hidden, actions = self.reward.shape
        shown = self.observation
        return visible, hidden, actions, 1 if shown is None else shown.shape[-1]

    def per_task(self) -> list[bool]:
        """Return which arrays have the axis of tasks; see `batches.per_task`."""
        axes, lead = {**AXES, **LISTS}, len(self.batch)

        def has(name: str, x: Any) -> bool:
            return name in axes and (not lead or np.ndim(x) > len(axes[name]))

        arrays = (each.name for each in fields(self) if not each.metadata.get("static"))
        found = ((name, getattr(self, name)) for name in arrays)
        return [has(name, x) for name, x in found if x is not None]

    def listed(self) -> Int[Array, "... X A N"]:
        """Return the successors, also where the model has no lists."""
        if self.successors is not None:
            return self.successors
        visible, _, actions, _ = self.sizes
        every = jnp.arange(visible, dtype=jnp.int32)
        return jnp.broadcast_to(every, (visible, actions, visible))

    def check(self) -> None:
        """Raise an error if an array is invalid.

        Raises:
            TypeError: if a field is not an array, such as a list.
            ValueError: naming the field, the index and the invalid number.

        """
        check_arrays(self, (*AXES, "successors", "admissible"))
        if np.ndim(self.initial) < 2 or np.ndim(self.reward) < 3:
            raise ValueError(
                f"initial has shape {np.shape(self.initial)} and reward "
                f"{np.shape(self.reward)}: must be [*B, X, Y] and [*B, X, Y, A]"
            )
        batch = () if self.shared else self.batch
        visible, hidden, actions, symbols = self.sizes
        if 0 in (*self.batch, visible, hidden, actions):
            raise ValueError(
                f"reward has shape {np.shape(self.reward)}: must have a task, a "
                "visible and a hidden value, and an action"
            )
        if self.initial_observation is not None and self.observation is None:
            raise ValueError("observation: must be given if initial_observation is")
        length = {"X": visible, "Y": hidden, "A": actions, "O": symbols}
        length["N"] = visible
        if self.successors is not None:
            length["N"] = (np.shape(self.successors) or (0,))[-1]
        for name, axes in AXES.items():
            lead = self.batch if name == "initial" else batch
            if getattr(self, name) is not None:
                _check_array(self, name, (*lead, *(length[axis] for axis in axes)))
        check_unit_interval("discount", self.discount)
        check_finite("reward", self.reward)
        for name in DISTRIBUTIONS:
            value = getattr(self, name)
            if value is not None:
                flat = np.asarray(value)
                if name == "initial":  # one distribution over both parts
                    flat = flat.reshape(*flat.shape[:-2], -1)
                check_rows(name, flat)
        self._check_lists(batch, length)

    def _check_lists(self, batch: tuple[int, ...], length: dict[str, int]) -> None:
        visible, actions = length["X"], length["A"]
        if self.successors is not None:
            index = np.asarray(self.successors)
            own = (visible, actions, length["N"])
            if index.shape not in (own, (*batch, *own)):
                raise ValueError(
                    f"successors has shape {index.shape}: must be [X, A, N] = {own}, "
                    "or the same after the batch axes"
                )
            if index.dtype.kind != "i":
                raise ValueError(
                    f"successors has dtype {index.dtype}: must be whole numbers"
                )
            raise_first(
                "successors",
                (index < 0) | (index >= visible),
                lambda i: f" = {index[i]}: must be from 0 to {visible - 1}",
                "entries",
            )
        if self.admissible is not None:
            mask = np.asarray(self.admissible)
            if mask.dtype != bool or mask.shape != (*batch, visible, actions):
                raise ValueError(
                    f"admissible has dtype {mask.dtype} and shape {mask.shape}: must "
                    f"be bool, [*B, X, A] = {(*batch, visible, actions)}"
                )
            raise_first(
                "admissible",
                np.asarray(~mask.any(-1)),
                lambda i: ": no action is admissible at this visible value",
                "visible values",
            )


def _check_array(model: MOMDP, name: str, expected: tuple[int, ...]) -> None:
    """Check the shape and the floating-point type of a field."""
    value = np.asarray(getattr(model, name))
    if value.shape != expected:
        lead = "" if name != "initial" and model.shared else "*B, "
        raise ValueError(
            f"{name} has shape {value.shape}: must be "
            f"[{lead}{', '.join(AXES[name])}] = {expected}, to agree "
            "with the shapes of reward and initial; arrays of a MOMDP cannot depend on "
            "the stage, which can be a part of x"
        )
    wanted = np.asarray(model.reward).dtype
    if value.dtype.kind != "f" or value.dtype != wanted:
        raise ValueError(
            f"{name} has dtype {value.dtype}: must be floating-point, as reward "
            f"({wanted})"
        )


def rows_of(model: MOMDP, name: str, task: Any, *place: Any) -> Any:
    """Return the rows of an array, which tasks may share, at indices on its axes.

    Args:
        model: a batch of tasks, with one batch axis, or none but in `initial`.
        name: name of the array.
        task: index of each task.
        place: indices on the first axes after the batch axis.

    """
    array = model.listed() if name == "successors" else getattr(model, name)
    shared = array.ndim == len({**AXES, **LISTS}[name])
    return array[place if shared else (task, *place)]


def first_beliefs(
    model: MOMDP,
) -> tuple[Float[np.ndarray, "*B X I Y"], Float[np.ndarray, "*B X I"]]:
    """Return the belief at each first visible value and symbol, and its probability.

    At a visible value of probability zero, it is the belief before it is seen.
    """
    initial = np.asarray(model.initial)
    joint = initial[..., None, :]
    if model.initial_observation is not None:
        joint = joint * np.swapaxes(np.asarray(model.initial_observation), -1, -2)
    mass = joint.sum(-1)
    some = mass[..., None] > 0
    before = np.broadcast_to(initial.sum(-2)[..., None, None, :], joint.shape)
    return np.where(some, joint / np.where(some, mass[..., None], 1), before), mass


def some_tasks(model: MOMDP, chosen: Int[np.ndarray, " C"]) -> MOMDP:
    """Return some tasks of a batch whose batch axes are counted as one."""
    axes = {**AXES, **LISTS}

    def of(name: str) -> Any:
        x = getattr(model, name)
        if x is None or np.ndim(x) == len(axes[name]):  # shared
            return x
        return jnp.asarray(x).reshape(-1, *x.shape[-len(axes[name]) :])[chosen]

    names = [name for name in axes if getattr(model, name) is not None]
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names], model, list(map(of, names))
    )
