"""Cassandra's format: every form of entry, exact round trips, errors with lines."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_models import random_pomdp, tiger
from tolerances import ROUNDING

from sdm.tasks.cassandra import load_pomdp, read_pomdp
from sdm.tasks.cassandra_words import PomdpFileError
from sdm.tasks.cassandra_writer import save_pomdp
from sdm.tasks.models import RobustMDP

HEAD = "discount: 0.9\nvalues: reward\nstates: a b\nactions: go stay\nobservations: 2\n"
ONE = jnp.ones((1, 1, 1))
ROWS = "T: * identity\nO: * uniform\n"


@pytest.fixture
def read(tmp_path):
    def load(text):
        path = tmp_path / "model.POMDP"
        path.write_text(text)
        return load_pomdp(path)

    return load


def test_the_tiger_as_published_is_the_tiger(read):
    model = read("""# Kaelbling, Littman, Cassandra (1998)
discount: 0.95
values: reward
states: tiger-left tiger-right
actions: listen open-left open-right
observations: tiger-left tiger-right

T: listen
identity
T:open-left
uniform
T:open-right
uniform

O:listen
0.85 0.15
0.15 0.85
O:open-left
uniform
O:open-right
uniform

R:listen : * : * : * -1
R:open-left : tiger-left : * : * -100
R:open-left : tiger-right : * : * 10
R:open-right : tiger-left : * : * 10
R:open-right : tiger-right : * : * -100
""")
    wanted = tiger()
    for name in ("transition", "observation", "reward", "initial", "discount"):
        np.testing.assert_array_equal(getattr(model, name), getattr(wanted, name))
    assert model.initial_observation is None


def test_numbers_rows_and_matrices_say_the_same(read):
    single = "".join(
        f"T: go : {s} : {n} {p}\n"
        for s, n, p in (("a", "a", 0.3), ("a", "b", 0.7), ("b", "a", 0.6), (1, 1, 0.4))
    )
    row = "T: go : a\n0.3 0.7\nT: go : b\n0.6 0.4\n"
    matrix = "T: go\n0.3 0.7\n0.6 0.4\n"
    rest = "T: stay identity\nO: * uniform\n"
    wanted = np.array([[0.3, 0.7], [0.6, 0.4]])
    for form in (single, row, matrix):
        model = read(HEAD + form + rest)
        np.testing.assert_array_equal(model.transition[:, 0], wanted)
        np.testing.assert_array_equal(model.transition[:, 1], np.eye(2))


def test_rewards_of_what_follows_become_expectations(read):
    seen = "O: * : a\n0.8 0.2\nO: * : b\n0.5 0.5\n"
    moves = "T: go\n0.3 0.7\n0.6 0.4\nT: stay identity\n"
    paid = "R: go : a : b : 1 10\nR: stay : b : b\n1 3\nR: stay : a\n1 2\n3 4\n"
    reward = np.asarray(read(HEAD + moves + seen + paid).reward)
    np.testing.assert_allclose(
        reward[0], [0.7 * 0.5 * 10, 0.8 * 1 + 0.2 * 2], rtol=ROUNDING
    )
    np.testing.assert_allclose(reward[1], [0, 0.5 * 1 + 0.5 * 3], rtol=ROUNDING)


def test_a_later_entry_overrides_an_earlier_one(read):
    model = read(HEAD + ROWS + "R: * : * : * : * 1\nR: go : a : * : * 5\n")
    np.testing.assert_array_equal(model.reward, [[5, 1], [1, 1]])


def test_costs_are_negative_rewards(read):
    text = HEAD.replace("reward", "cost") + ROWS + "R: go : * : * : * 2\n"
    np.testing.assert_array_equal(read(text).reward, [[-2, 0], [-2, 0]])


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("", [0.5, 0.5]),
        ("start: uniform\n", [0.5, 0.5]),
        ("start: 0.25 0.75\n", [0.25, 0.75]),
        ("start: b\n", [0, 1]),
        ("start: 0\n", [1, 0]),
        ("start include: a\n", [1, 0]),
        ("start exclude: a\n", [0, 1]),
    ],
)
def test_every_way_to_start(read, start, wanted):
    np.testing.assert_array_equal(read(HEAD + start + ROWS).initial, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_is_read_back_exactly(tmp_path, seed):
    model = random_pomdp(seed, states=4, actions=3, symbols=2, first=False)
    save_pomdp(model, tmp_path / "model.POMDP")
    again = load_pomdp(tmp_path / "model.POMDP")
    assert eqx.tree_equal(model, again)
    assert [p.name for p in tmp_path.iterdir()] == ["model.POMDP"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: `discount:` is not given"),
        (HEAD, "`T:` of action `go`, state `a` is not given"),
        (HEAD + ROWS + "Q: 1", "line 8: unknown keyword `Q`"),
        ("discnt: 1\n" + HEAD, "line 1: unknown keyword `discnt`: must be discount"),
        (HEAD.replace("actions", "actons"), "line 4: unknown keyword `actons`"),
        (HEAD + "stat: a\n" + ROWS, "line 6: unknown keyword `stat`"),
        (HEAD + "T: go\n1 0\n0.5 0.4\n" + ROWS[14:], "line 8: `T:` of action `go`, "),
        (HEAD + "T: go\n1\n0\n0.5\n0.4\n" + ROWS[14:], "line 10: `T:` of action"),
        (HEAD + ROWS + "O: go : b\n0.5 0.4", "line 9: `O:` of action `go`, next"),
        (
            HEAD + ROWS + "T: go\n1 0\n0.5 0.4",
            "line 10: `T:` of action `go`",
        ),
        (HEAD + ROWS + "T: go\n1 0\n0 1 1", "line 10: expected an entry, found"),
        (
            HEAD + "start uniform\n" + ROWS,
            "line 6: `observations:` has the name `start`",
        ),
        (HEAD + ROWS + "discount: 1", "line 8: `discount:` is given twice, first in"),
        (HEAD + ROWS + "R: go : a : a : 0 1e200", "line 8: a reward is `1e200`"),
        (HEAD + ROWS + "R: go : a : a : 0 -inf", "to forbid an action"),
        (HEAD + ROWS + "R: go : a : a : 0 inf", "to forbid an action"),  # of costs
        (HEAD.replace("a b", "9" * 5000), "line 3: 99999999999999999999 states"),
        (HEAD + ROWS + "T: fly identity", "line 8: unknown action `fly`"),
        (HEAD + ROWS + "T: go : c\n1 0", "line 8: unknown state `c`"),
        (HEAD + ROWS + "T: goo identity", "unknown action `goo`: did you mean `go`?"),
        (
            HEAD + ROWS + "T: go\n1 0\n0",
            "line 10: expected 2 numbers, each a probability, found 1 before the end",
        ),
        (HEAD + ROWS + "R: go : a : a\nR: go : a : b 1", "found 0 before `R`"),
        (HEAD + ROWS + "T: go : a : a 1.5", "line 8: a probability is `1.5`: must be"),
        (HEAD + ROWS + "T: go\n1 0\n-1 2", "line 10: a probability is `-1`"),
        (HEAD + ROWS + "T: go : a : a x", "line 8: expected a probability, found `x`"),
        (HEAD + ROWS + "R: go : a : a : 0 nan", "line 8: a reward is `nan`"),
        (HEAD + ROWS + "R: 1", "line 8: `R:` needs an action and a state"),
        (HEAD + "T: * identity\n", "`O:` of action `go`, next state `a` is not given"),
        (HEAD + "start: 0.5 0.6\n" + ROWS, "line 6: `start` sums to 1.1"),
        (HEAD.replace("0.9", "1.9"), "line 1: the discount is `1.9`: must be in"),
        (
            HEAD.replace("reward", "gain"),
            "line 2: expected `reward` or `cost`, found `gain",
        ),
        (HEAD.replace("a b", "a a"), "line 3: `states:` has a name twice"),
        (HEAD.replace("a b", "0"), "line 3: 0 states: must be"),
        (HEAD.replace("a b", "-3"), "line 3: `states:` has `-3`: must be one whole"),
        (HEAD.replace("states: a b\n", ""), "`states:` is not given"),
    ],
)
def test_an_error_says_where_and_what(read, text, message):
    with pytest.raises(PomdpFileError) as error:
        read(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_line_without_end_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sdm.tasks.cassandra_words.LONGEST_LINE", 1000)
    path = tmp_path / "model.POMDP"
    path.write_text(HEAD + "T: " + "0 " * 5000)
    with pytest.raises(PomdpFileError, match="line 6: a line longer than 1000"):
        load_pomdp(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "model.POMDP"
    path.write_bytes(b"\n\n\xff\xfe\x00")
    with pytest.raises(PomdpFileError, match=r"line 3: not UTF-8 text"):
        load_pomdp(path)


WORDS = ["discount:", "values:", "reward", "cost", "states:", "actions:", "a", "b", "2"]
WORDS += ["observations:", "start:", "start", "include", "exclude", "T:", "O:", "R:"]
WORDS += ["*", ":", "uniform", "identity", "0.5", "1", "-1", "1e400", "nan", "#", "\n"]


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(["", HEAD, HEAD + ROWS]),
    words=st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=12),
)
@example(head=HEAD, words=["start", ":"])
def test_whatever_is_in_a_file_it_is_a_model_or_an_error(tmp_path_factory, head, words):
    path = tmp_path_factory.mktemp("fuzz") / "model.POMDP"
    path.write_bytes((head + " ".join(words)).encode("utf-8", "surrogatepass"))
    try:
        model = load_pomdp(path)
    except PomdpFileError as error:
        assert str(path) in str(error)
    else:
        assert np.isfinite(model.reward).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (random_pomdp(0), "must have no observation before the first"),
        (random_pomdp(0, batch=(2,), first=False), "found a batch"),
        (RobustMDP(ONE[None], ONE[0], ONE[0, 0], 0.5, 0.9), "found RobustMDP"),
    ],
)
def test_what_the_format_cannot_say_is_refused(tmp_path, model, message):
    with pytest.raises(ValueError, match=message):
        save_pomdp(model, tmp_path / "model.POMDP")
    assert not list(tmp_path.iterdir()) and jnp.isfinite(model.reward).all()


@pytest.mark.parametrize("start", ["only", "0", "1.0", "uniform"])
def test_one_state_is_a_state_too(start, read):
    head = "discount: 0.9\nvalues: reward\nstates: only\nactions: 1\nobservations: 1\n"
    model = read(head + f"start: {start}\n" + ROWS)
    np.testing.assert_array_equal(model.initial, [1.0])


def test_reset_goes_back_to_where_episodes_start(read):
    moves = "T: go identity\nT: stay : a reset\nT: stay : b\n0.5 0.5\n"
    model = read(HEAD + "start: 0.25 0.75\n" + moves + "O: * uniform\n")
    np.testing.assert_array_equal(model.transition[0, 1], [0.25, 0.75])
    every = read(HEAD + "start: b\nT: go reset\nT: stay identity\nO: * uniform\n")
    np.testing.assert_array_equal(every.transition[:, 0], [[0, 1], [0, 1]])


def test_names_are_read_and_written(tmp_path):
    path, names = tmp_path / "model.POMDP", {"states": ["a", "b"], "actions": ["go"]}
    save_pomdp(random_pomdp(0, states=2, actions=1, first=False), path, **names)
    found = read_pomdp(path)
    assert (found.states, found.actions) == (("a", "b"), ("go",))
    assert found.observations == tuple(map(str, range(len(found.observations))))
    assert eqx.tree_equal(found.model, load_pomdp(path))


@pytest.mark.parametrize(
    "names", [["a"], ["a", "a"], ["a", "b c"], ["a", "2"], ["a", "start"]]
)
def test_names_that_could_not_be_read_back_are_refused(tmp_path, names):
    model = random_pomdp(0, states=2, actions=1, first=False)
    with pytest.raises(ValueError, match="`states` has"):
        save_pomdp(model, tmp_path / "model.POMDP", states=names)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    model = random_pomdp(0, first=False)
    for place, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "a" / "b", "does not exist"),
    ):
        with pytest.raises(OSError, match=message):
            save_pomdp(model, place)
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_is_no_word(tmp_path):
    path = tmp_path / "model.POMDP"
    path.write_text(HEAD + ROWS, encoding="utf-8-sig")
    assert load_pomdp(path).discount == 0.9
