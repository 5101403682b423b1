"""Dynamics of the simulator of sepsis; `families.sepsis` states its rules."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.tasks.family import Component, Params

# The published probabilities of the effects of treatments and of their withdrawal.
EFFECTS = {
    "antibiotics": 0.5,  # high heart rate or blood pressure to normal
    "antibiotics_off": 0.1,  # normal ones to high
    "ventilation": 0.7,  # low oxygen to normal
    "ventilation_off": 0.1,  # normal oxygen to low
    "pressure": 0.7,  # blood pressure up by one, without diabetes
    "pressure_high": 0.9,  # from normal to high, with diabetes
    "pressure_normal": 0.5,  # from low to normal, with diabetes
    "pressure_raised": 0.4,  # from low to high, with diabetes
    "pressure_off": 0.1,  # blood pressure down by one, without diabetes
    "pressure_off_diabetic": 0.05,  # with diabetes
    "sugar": 0.5,  # glucose up by one, with diabetes
}
SUGAR_FLUCTUATION = 0.3  # of diabetics' glucose, each way, in every task
THREE, SWITCH = ("low", "normal", "high"), ("off", "on")
SUGAR = ("very low", "low", "normal", "high", "very high")
STATE = (
    Component("diabetes", 2, ("no", "yes")),
    Component("heart rate", 3, THREE),
    Component("blood pressure", 3, THREE),
    Component("oxygen", 2, THREE[:2]),
    Component("glucose", 5, SUGAR),
    Component("antibiotics", 2, SWITCH),
    Component("vasopressors", 2, SWITCH),
    Component("ventilation", 2, SWITCH),
)
SIZES = tuple(component.size for component in STATE)
STATES = 1440
NORMAL = (1, 1, 1, 2)  # levels of the vitals
# Levels at the start, of vitals and of glucose without and with diabetes.
FIRST = ((0.25, 0.5, 0.25), (0.25, 0.5, 0.25), (0.2, 0.8))
FIRST_SUGAR = ((0.05, 0.15, 0.6, 0.15, 0.05), (0.01, 0.05, 0.15, 0.6, 0.19))


@dataclass(frozen=True)
class NextStates:
    """What all hospitals have in common.

    Attributes:
        successors: possible next states.
        entry: for each vital, the entry of its table that has the probability of the
            vital's next level.
        ended: whether the episode has ended in a state.
        stays: 1 at the first entry of each list, in which an ended state stays.
        possible: whether a state can follow in any hospital.
        paid: reward on arrival in a state.

    """

    successors: Int[np.ndarray, "S A N"]
    entry: Mapping[str, Int[np.ndarray, "S A N"]]
    ended: np.ndarray
    stays: Float[np.ndarray, "S A N"]
    possible: Bool[np.ndarray, "S A N"]
    paid: Float[np.ndarray, " S"]


# The shapes of the tables: what the next level of a vital depends on, and the level.
SHAPES = {
    "heart": (2, 2, 3, 3),  # antibiotics before and now
    "blood": (2, 2, 2, 2, 2, 3, 3),  # diabetes, antibiotics, vasopressors
    "oxygen": (2, 2, 2, 2),  # ventilation before and now
    "glucose": (2, 2, 5, 5),  # diabetes, vasopressors now
}


@cache
def next_states(as_published: bool) -> NextStates:
    """Return the possible next states of every state and action."""
    state = np.indices(SIZES).reshape(len(SIZES), -1)
    action = np.arange(8)
    diabetes, *vitals, anti, press, vent = (x[:, None, None] for x in state)
    new = (action >> 2, action & 1, action >> 1 & 1)
    anti_1, press_1, vent_1 = (x[None, :, None] for x in new)
    every = np.stack(np.meshgrid(*map(np.arange, SIZES[1:5]), indexing="ij"))
    heart, blood, oxygen, glucose = every.reshape(4, -1)
    places = {
        "heart": (anti, anti_1, vitals[0], heart),
        "blood": (diabetes, anti, anti_1, press, press_1, vitals[1], blood),
        "oxygen": (vent, vent_1, vitals[2], oxygen),
        "glucose": (diabetes, press_1, vitals[3], glucose),
    }
    entry = {
        name: np.ravel_multi_index(np.broadcast_arrays(*place), SHAPES[name])
        for name, place in places.items()
    }
    params = {**dict.fromkeys(EFFECTS, 0.3), "fluctuation": 0.3}  # all is possible
    with jax.ensure_compile_time_eval():
        chances = tables(
            {name: jnp.asarray(x) for name, x in params.items()},
            as_published=as_published,
        )
        possible = np.ones((STATES, 8, len(heart)), bool)
        for name, table in chances.items():
            possible &= np.asarray(table)[entry[name]] > 0
    after = (diabetes, heart, blood, oxygen, glucose, anti_1, press_1, vent_1)
    index = np.ravel_multi_index(np.broadcast_arrays(*after), SIZES)
    count = int(possible.sum(-1).max())
    # The possible entries first, and then impossible ones, in the order of states.
    order = np.argsort(~possible, axis=-1, kind="stable")[..., :count]
    order = np.sort(order, axis=-1)
    paid = _paid(state)
    ended = paid != 0
    successors = np.take_along_axis(index, order, -1)
    successors = np.where(ended[:, None, None], _staying(count), successors)
    stays = successors == np.arange(STATES)[:, None, None]
    possible = np.take_along_axis(possible, order, -1)
    return NextStates(
        successors=successors.astype(np.int32),
        entry={x: np.take_along_axis(y, order, -1) for x, y in entry.items()},
        ended=ended,
        stays=stays.astype(float),
        possible=np.where(ended[:, None, None], stays, possible),
        paid=paid.astype(float),
    )


def _staying(count: int) -> Int[np.ndarray, "S 1 N"]:
    """Return ascending lists of states that contain the state itself."""
    first = np.clip(np.arange(STATES) - count + 1, 0, None)
    return (first[:, None] + np.arange(count))[:, None]


def _paid(state: Int[np.ndarray, "8 S"]) -> Int[np.ndarray, " S"]:
    """Return 1 for states of discharge, -1 for death and 0 for others."""
    wrong = (state[1:5] != np.array(NORMAL)[:, None]).sum(0)
    treated = state[5:].any(0)
    return np.where(wrong >= 3, -1, ((wrong == 0) & ~treated).astype(int))


def tables(params: Params, *, as_published: bool) -> dict[str, Array]:
    """Return the probabilities of each vital's next level, flat; see `SHAPES`."""
    p = {name: x[..., None, None] for name, x in params.items()}
    f = p["fluctuation"]
    cured, worse = (
        _moved(3, 2, 1, p["antibiotics"]),
        _moved(3, 1, 2, p["antibiotics_off"]),
    )
    heart = [[_fluctuating(3, f), cured], [worse, cured]]
    same = for_all(np.eye(3), f[..., 0, 0])
    blood = [
        _blood(p, cured, worse, same, diabetes, anti, anti_1, press, press_1)
        for diabetes, anti, anti_1, press, press_1 in itertools.product(
            (0, 1), repeat=5
        )
    ]
    ventilated = _moved(2, 0, 1, p["ventilation"])
    oxygen = [
        [_fluctuating(2, f), ventilated],
        [_moved(2, 1, 0, p["ventilation_off"]), ventilated],
    ]
    none = jnp.zeros_like(f)
    glucose = [
        _published_glucose(f) if as_published else _fluctuating(5, f),
        _shifted(5, none, none),
        _shifted(5, none + SUGAR_FLUCTUATION, none + SUGAR_FLUCTUATION),
        _shifted(5, p["sugar"], none),
    ]
    parts = {
        "heart": [x for row in heart for x in row],
        "blood": blood,
        "oxygen": [x for row in oxygen for x in row],
        "glucose": glucose,
    }
    batch = f.shape[:-2]
    return {
        name: jnp.stack(
            [jnp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in tables], axis=-3
        ).reshape(*batch, -1)
        for name, tables in parts.items()
    }


def _blood(
    p: Mapping[str, Array],
    cured: Array,
    worse: Array,
    same: Array,
    diabetes: int,
    anti: int,
    anti_1: int,
    press: int,
    press_1: int,
) -> Array:
    """Return the law of blood pressure: antibiotics first, then vasopressors."""
    none = jnp.zeros_like(p["fluctuation"])
    first = cured if anti_1 else worse if anti else same
    if press_1 and diabetes:
        up, more, two = (p[f"pressure_{x}"] for x in ("high", "normal", "raised"))
        row = jnp.concatenate([1 - more - two, more, two], axis=-1)
        middle = jnp.concatenate([none, 1 - up, up], axis=-1)
        last = jnp.concatenate([none, none, none + 1], axis=-1)
        second = jnp.concatenate([row, middle, last], axis=-2)
    elif press_1:
        second = _shifted(3, p["pressure"], none)
    elif press:
        down = p["pressure_off_diabetic"] if diabetes else p["pressure_off"]
        second = _shifted(3, none, down)
    elif anti or anti_1:
        second = same
    else:
        second = _fluctuating(3, p["fluctuation"])
    return first @ second


def for_all(array: np.ndarray, params: Array) -> Array:
    """Return an array that all tasks share, with leading axes like a parameter's."""
    return jnp.asarray(array, params.dtype)[(None,) * params.ndim]


def _shifted(levels: int, up: Array, down: Array) -> Array:
    """Return the law of one step up or down, clipped."""
    above, below = np.eye(levels, k=1), np.eye(levels, k=-1)
    above[-1, -1] = below[0, 0] = 1
    stays, rises, falls = (
        for_all(x, up[..., 0, 0]) for x in (np.eye(levels), above, below)
    )
    return (1 - up - down) * stays + up * rises + down * falls


def _fluctuating(levels: int, f: Array) -> Array:
    return _shifted(levels, f, f)


def _moved(levels: int, before: int, after: int, chance: Array) -> Array:
    """Return the law that moves one level to another, and no other level."""
    step = np.zeros((levels, levels))
    step[before, before], step[before, after] = -1, 1
    stays, moves = (for_all(x, chance[..., 0, 0]) for x in (np.eye(levels), step))
    return stays + chance * moves


def _published_glucose(f: Array) -> Array:
    """Return the law without diabetes: up leads to low at most."""
    up, down = np.zeros((5, 5)), np.eye(5, k=-1)
    up[np.arange(5), np.minimum(1, np.arange(5) + 1)] = 1
    down[0, 0] = 1
    stays, rises, falls = (for_all(x, f[..., 0, 0]) for x in (np.eye(5), up, down))
    return (1 - 2 * f) * stays + f * (rises + falls)


def initial(diabetic: Float[Array, "*B"]) -> Float[Array, "*B S"]:
    """Return the states at the start, which have not ended."""
    parts = []
    for sugar in FIRST_SUGAR:
        joint = np.ones(1)
        for levels in (*FIRST, sugar):
            joint = np.outer(joint, levels).ravel()
        parts.append(np.outer(joint, [1, *[0] * 7]).ravel())  # no treatment is on
    law = np.stack(parts)
    law[:, _paid(np.indices(SIZES).reshape(8, -1))[: STATES // 2] != 0] = 0
    law /= law.sum(-1, keepdims=True)
    shares = jnp.stack([1 - diabetic, diabetic], axis=-1)
    both = shares[..., None] * for_all(law, diabetic)
    return both.reshape(*diabetic.shape, -1)
