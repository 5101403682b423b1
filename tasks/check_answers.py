"""Checks of the results of one method of a family: arrays by name, and models.

An error is one line with the family, the method, the problem and the value found.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sdm.tasks.family import SET_KEY, Kind, Params, Split
from sdm.tasks.models import APOMDP, MDP, POMDP, batch_shape, check_model
from sdm.tasks.momdp import MOMDP
from sdm.tasks.registry import FamilyError
from sdm.tasks.reward_law import law_of
from sdm.tasks.stages import check_stationary
from sdm.tasks.streams import Stream, stream_key
from sdm.tasks.worlds import sizes_of, world_of

CLASSES: dict[Kind, tuple[type, ...]] = {
    "mdp": (MDP,),
    "pomdp": (POMDP, MOMDP),
    "apomdp": (APOMDP,),
}
STREAMS: dict[Split, Stream] = {"train": Stream.TRAIN_TASKS, "test": Stream.TEST_TASKS}
SAME_REWARD = 1e-6  # relative; rewards in single precision
UNTRACEABLE = (
    "use `jax.numpy`, and `jnp.where` instead of `if`, so that JAX can trace it"
)
Arrays = Mapping[str, Any]  # JAX or NumPy arrays by name
Shapes = dict[str, tuple[tuple[int, ...], str]]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Subject:
    """A family under test, and the kind of model to check."""

    family: Any
    kind: Kind

    def wrong(self, where: str, what: str, hint: str = "") -> NoReturn:
        """Raise a `FamilyError` about an attribute or method of the family."""
        name = getattr(self.family, "name", None) or type(self.family).__name__
        raise FamilyError(f"family `{name}`: `{where}` {what}", hint)

    def ask(self, where: str, call: Callable[[], _T]) -> _T:
        """Call a method, and turn its exceptions into a `FamilyError`."""
        try:
            return call()
        except Exception as error:
            if hasattr(error, "hint"):  # already an error message for users
                raise
            first = (str(error) or "?").splitlines()[0]
            traced = isinstance(error, jax.errors.JAXTypeError)
            raise FamilyError(
                f"family `{self.family.name}`: `{where}` raised "
                f"{type(error).__name__}: {first}",
                UNTRACEABLE if traced else "set `SDM_DEBUG=1` to see the traceback",
            ) from error

    def count(self, split: Split) -> int | None:
        """Return the number of tasks in a split; None if it is unlimited."""
        found = self.ask("available", lambda: self.family.available(split))
        whole = isinstance(found, int | np.integer) and not isinstance(found, bool)
        if found is not None and (not whole or found < 1):
            self.wrong(
                "available",
                f"must be None or a positive number of tasks, found {found!r} for "
                f"split {split!r}",
            )
        return None if found is None else int(found)

    def draw(self, split: Split, n: int, first: Any) -> dict[str, Array]:
        """Return the parameters of tasks, sampled as in the commands."""
        key, make = stream_key(0, STREAMS[split]), self.family.parameters
        drawn = self.ask("parameters", lambda: make(key, n, split=split, first=first))
        check_arrays(self, "parameters", drawn, n)
        return dict(drawn)

    def pose(self, params: Params, kind: Kind) -> Any:
        """Return the models of a batch of parameters."""
        found = self.ask("model", lambda: self.family.model(params, kind))
        if not isinstance(found, CLASSES[kind]):
            names = " or ".join(each.__name__ for each in CLASSES[kind])
            self.wrong(
                "model",
                f"must return {names} for kind {kind!r}, found {type(found).__name__}",
            )
        return found

    @property
    def believed(self) -> Kind:
        """Kind of model that Bayesian policies plan with."""
        return "mdp" if self.kind == "mdp" else "pomdp"


def shapes_of(params: Arrays) -> Shapes:
    """Return the shape of one task's entry and the dtype of each parameter."""
    return {name: (tuple(x.shape[1:]), str(x.dtype)) for name, x in params.items()}


def check_same(subject: Subject, where: str, first: Shapes, other: Shapes) -> None:
    """Check that two calls return arrays of the same names, shapes and dtypes."""
    for name in {**first, **other}:
        mine, theirs = (x.get(name, ((), "nothing")) for x in (first, other))
        if mine != theirs:
            subject.wrong(
                where,
                f"must return the same shapes and dtypes in every call, found {name} "
                f"{mine[1]}{list(mine[0])} and {theirs[1]}{list(theirs[0])}",
            )


def check_arrays(subject: Subject, where: str, params: Any, n: int) -> None:
    """Check that parameters are numeric arrays by name, with tasks on axis 0."""
    if not isinstance(params, Mapping) or not params:
        subject.wrong(where, f"must return arrays by name, found {short(params)}")
    for name, value in params.items():
        if not isinstance(name, str) or name == SET_KEY:
            subject.wrong(where, f"must not have this entry, found {name!r}")
        if not isinstance(value, jax.Array | np.ndarray):
            subject.wrong(where, f"must return arrays, found {name} = {short(value)}")
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            subject.wrong(where, f"must return numbers, found {name} {value.dtype}")
        if value.ndim < 1 or len(value) != n:
            subject.wrong(
                where,
                f"must return arrays with {n} tasks on axis 0, found {name} of shape "
                f"{value.shape}",
            )


def check_finite(subject: Subject, where: str, params: Arrays) -> None:
    """Check that parameters are finite."""
    for name, value in params.items():
        bad = np.argwhere(~np.isfinite(np.asarray(value)))
        if len(bad):
            subject.wrong(
                where,
                f"must be finite, found {name}{bad[0].tolist()} = "
                f"{np.asarray(value)[tuple(bad[0])]}",
            )


def check_posed(
    subject: Subject, model: Any, n: int, kind: Kind, where: str = "model"
) -> None:
    """Check that models are valid and have the sizes in `spaces`."""
    try:
        check_model(model)
        check_stationary(model, "a family of tasks")
    except ValueError as error:
        subject.wrong(where, f"is not a valid {kind}: {error}")
    if batch_shape(model) != (n,):
        subject.wrong(
            where,
            f"must return {n} models for {n} tasks, found batch axes "
            f"{batch_shape(model)}",
        )
    precision = str(jnp.result_type(float))
    if str(model.reward.dtype) != precision:
        subject.wrong(
            where,
            f"must return arrays of {precision}, found {model.reward.dtype}",
            "use the default dtype of `jax.numpy`",
        )
    spaces = subject.family.spaces
    states, actions, symbols = sizes_of(world_of(model))
    sizes = [
        ("states", states, spaces.states),
        ("actions", actions, len(spaces.actions)),
        ("symbols", symbols, spaces.symbols(kind)),
    ]
    for name, found, said in sizes:
        if found != said:
            subject.wrong(
                where, f"must have {said} {name} as in `spaces`, found {found}"
            )
    _check_duplicates(subject, model, where)
    _check_rewards(subject, model, kind, where)


def _check_duplicates(subject: Subject, model: Any, where: str) -> None:
    """Check that duplicate actions have equal transitions and rewards."""
    for group in subject.family.spaces.duplicates:
        for copy in group[1:]:
            for name in ("transition", "reward"):
                table = np.asarray(getattr(model, name))
                table = table if name == "reward" else np.moveaxis(table, -2, -1)
                if not np.allclose(table[..., copy], table[..., group[0]]):
                    subject.wrong(
                        where,
                        f"must have equal {name} for duplicate actions, found a "
                        f"difference between actions {group[0]} and {copy}",
                        "correct `spaces.duplicates` or the model",
                    )


def _check_rewards(subject: Subject, model: Any, kind: Kind, where: str) -> None:
    """Check that all rewards are among those in `spaces`, if it lists any.

    Expected rewards need not be among those that can be paid.
    """
    spaces = subject.family.spaces
    listed = np.asarray(spaces.levels(kind), float)
    if spaces.random_rewards != (law_of(model) is not None):
        subject.wrong(
            "spaces.random_rewards",
            f"must say whether models have a `law` of rewards, found "
            f"{spaces.random_rewards}",
        )
    if not listed.size or spaces.random_rewards:
        return
    reward = np.asarray(model.reward, float)
    near = SAME_REWARD * np.maximum(1, np.abs(reward))
    bad = (np.abs(reward[..., None] - listed) > near[..., None]).all(-1)
    if bad.any():
        at = [int(i) for i in np.argwhere(bad)[0]]
        subject.wrong(
            where,
            f"must have rewards that `spaces` lists, found reward{at} = "
            f"{reward[tuple(at)]:g}",
        )


def short(value: Any) -> str:
    """Return a value as one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
