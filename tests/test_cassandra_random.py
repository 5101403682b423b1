"""Random files in Cassandra's format against dense arrays that every entry assigns."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import random_mdp, random_pomdp
from tolerances import ROUNDING

from sdm.tasks.cassandra import load_pomdp
from sdm.tasks.cassandra_tables import Table
from sdm.tasks.cassandra_writer import save_pomdp
from sdm.tasks.models import POMDP

CHANCES = ["0", "0.0", "1", "0.25", "0.5", ".5", "5e-1", "1.", "0.75", "+0.125"]
REWARDS = ["0", "-1", "2", "- 2.5", "1e2", "-0.25", "+3", "7.5", "0.0", "+ 4"]


@st.composite
def an_index(draw, names):
    """Text and slice of `*`, or of one name or number."""
    if draw(st.booleans()):
        return "*", slice(None)
    i = draw(st.integers(0, len(names) - 1))
    return draw(st.sampled_from([names[i], str(i)])), slice(i, i + 1)


@st.composite
def an_entry(draw, letter, sizes, arrays):
    """Text of an entry, which is also assigned to the dense arrays."""
    array = arrays[letter]
    names = [sizes[kind] for kind in {"T": "ass", "O": "aso", "R": "asso"}[letter]]
    if letter == "R" and not sizes["o"]:
        names = names[:3]
    least = {"T": 1, "O": 1, "R": 2 if sizes["o"] else 1}[letter]
    if letter == "R":
        least = max(least, len(names) - 2)
    depth = draw(st.integers(least, len(names)))
    found = [draw(an_index(known)) for known in names[:depth]]
    texts, where = zip(*found, strict=True)
    colon = draw(st.sampled_from([":", " : ", ": "]))
    text = f"{letter}{colon}{colon.join(texts)}"
    shape = tuple(len(known) for known in names[depth:])
    if letter != "R" and shape:
        words = ["uniform"]
        words += ["identity"] * (letter == "T" and depth == 1)
        words += ["reset"] * (letter == "T")
        word = draw(st.sampled_from([*words, None, None, None]))
        if word is not None:
            value = np.full(shape, 1 / shape[-1])
            if word == "reset":
                value = np.broadcast_to(arrays["start"], shape)
            elif word == "identity":
                value = np.eye(shape[0])
            array[where] = value
            return f"{text} {word}\n"
    count = int(np.prod(shape))
    pool = REWARDS if letter == "R" else CHANCES
    words = [draw(st.sampled_from(pool)) for _ in range(count)]
    array[where] = np.reshape([float(w.replace(" ", "")) for w in words], shape)
    gap = draw(st.sampled_from([" ", "\n", "  # note\n", " : "]))
    if gap == " : " and depth < len(names) and words[0].strip("+ ").isdigit():
        gap = " "  # after a colon, this would be an index
    each = draw(st.sampled_from([" ", "\n"]))
    return f"{text}{gap}{each.join(words)}\n"


@st.composite
def a_file(draw):
    """Text of a file, and the dense arrays that its entries say, in order."""
    sizes = {
        "a": [f"act{i}" for i in range(draw(st.integers(1, 2)))],
        "s": [f"st-{i}" for i in range(draw(st.integers(2, 3)))],
        "o": [f"see_{i}" for i in range(draw(st.integers(0, 3)))],
    }
    a, s, o = (len(sizes[kind]) for kind in "aso")
    chosen = draw(st.lists(st.sampled_from(sizes["s"]), min_size=1, unique=True))
    start = np.isin(sizes["s"], chosen) / len(chosen)
    arrays = {
        "T": np.zeros((a, s, s)),
        "O": np.zeros((a, s, o)),
        "R": np.zeros((a, s, s, o) if o else (a, s, s)),
        "start": start,
    }
    letters = "TOR" if o else "TR"
    entries = [
        draw(an_entry(letter, sizes, arrays))
        for letter in draw(st.lists(st.sampled_from(letters), max_size=8))
    ]
    for letter in letters[:-1]:  # complete the rows whose sums are wrong
        for i, j in itertools.product(range(a), range(s)):
            row = arrays[letter][i, j]
            if abs(row.sum() - 1) > 1e-6:
                row[:] = 0
                row[(i + j) % len(row)] = 1
                line = " ".join(map(str, row))
                entries.append(f"{letter}: {i} : {j}\n{line}\n")
    preamble = [
        "discount: 0.5\n",
        f"values: {draw(st.sampled_from(['reward', 'rewards']))}\n",
        f"states: {draw(st.sampled_from([' ', ', ', ','])).join(sizes['s'])}\n",
        f"actions : {' '.join(sizes['a'])}\n",
    ]
    preamble += [f"observations: {' '.join(sizes['o'])}\n"] * (o > 0)
    preamble.append(f"start include: {' '.join(chosen)}\n")
    return "".join([*draw(st.permutations(preamble)), *entries]), arrays


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(a_file())
def test_the_last_entry_wins_as_in_dense_arrays(tmp_path_factory, made):
    text, arrays = made
    path = tmp_path_factory.mktemp("random") / "own.POMDP"
    path.write_text(text)
    model = load_pomdp(path)
    transition, paid = np.swapaxes(arrays["T"], 0, 1), arrays["R"]
    np.testing.assert_array_equal(model.transition, transition)
    np.testing.assert_array_equal(model.initial, arrays["start"])
    assert isinstance(model, POMDP) == (arrays["O"].size > 0)
    if isinstance(model, POMDP):
        np.testing.assert_array_equal(model.observation, arrays["O"])
        reward = np.einsum("asn,ano,asno->sa", arrays["T"], arrays["O"], paid)
    else:
        reward = np.einsum("asn,asn->sa", arrays["T"], paid)
    np.testing.assert_allclose(model.reward, reward, atol=ROUNDING, rtol=ROUNDING)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(*[st.integers(1, 4)] * 3),
    hidden=st.booleans(),
    suffix=st.sampled_from(["POMDP", "pomdp.gz"]),
)
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory, seed, sizes, hidden, suffix
):
    states, actions, symbols = sizes
    path = tmp_path_factory.mktemp("written") / f"own.{suffix}"
    if hidden:
        model = random_pomdp(
            seed, states=states, actions=actions, symbols=symbols, first=False
        )
    else:
        model = random_mdp(seed, states=states, actions=actions)
    save_pomdp(model, path)
    again = load_pomdp(path)
    assert type(again) is type(model)
    for name, value in vars(model).items():
        other = getattr(again, name)
        assert value is other or np.array_equal(value, other), name
    assert path.read_bytes().startswith(b"\x1f\x8b") == (suffix == "pomdp.gz")
    assert jnp.isfinite(again.reward).all()


@pytest.mark.parametrize("letter", ["T", "O"])
def test_a_zero_takes_back_a_probability(tmp_path, letter):
    """Single cells on top of a row, a row on top of a cell, and `*` on both."""
    path = tmp_path / "own.POMDP"
    head = "discount: 1\nvalues: cost\nstates: 2\nactions: 1\nobservations: 2\n"
    other = "O: * uniform\n" if letter == "T" else "T: * identity\n"
    lines = "X: 0 : 0 : 0 1\nX: * : *\n0.5 0.5\nX: * : 1 : 0 0\nX: 0 : * : 1 1\n"
    lines += "X: 0 : 0 : 0 0\n"
    path.write_text(head + other + lines.replace("X", letter))
    model = load_pomdp(path)
    found = model.transition[:, 0] if letter == "T" else model.observation[0]
    np.testing.assert_array_equal(found, [[0, 1], [0, 1]])


def test_cells_are_those_that_are_not_zero_in_order():
    table, one = Table(2, 3, 4), slice(1, 2)
    table.set_rows(slice(None), slice(None), np.array([0, 0.5, 0, 0.5]), 1)
    table.set_cells(one, one, slice(3, 4), 0.0, 2)
    table.set_cells(one, one, slice(0, 1), 0.5, 3)
    found = table.cells(np.zeros(4))
    assert len(found.value) == 12 and (found.value == 0.5).all()
    code = np.stack(found[:3], axis=1).tolist()
    assert code == sorted(code) and [1, 1, 0] in code and [1, 1, 3] not in code
