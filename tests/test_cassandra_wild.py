"""Files in Cassandra's format as people write them: what is read, and what is not."""

import gzip
import tracemalloc

import numpy as np
import pytest

from sdm.solvers_jax import MDP, POMDP, load_model, load_pomdp, solve
from sdm.tasks.cassandra_words import PomdpFileError
from sdm.tasks.model_files import load_with_names

HEAD = "discount: 0.9\nvalues: reward\nstates: a b\nactions: go stay\nobservations: 2\n"
ROWS = "T: * identity\nO: * uniform\n"
LATIN = HEAD.replace("0.9", "0.9 # caf\xe9") + ROWS + "# \xfc\n"


@pytest.fixture
def read(tmp_path):
    def load(text):
        path = tmp_path / "model.POMDP"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_pomdp(path)

    return load


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("R:*:*:*:*-2.5", -2.5),
        ("R:*:*:*:*1", 1),
        ("R: * : * : * : * - 2.5", -2.5),
        ("R: * : * : * : * + 2.5", 2.5),
        ("R: * : * : * : * : 4", 4),
        ("R: * : * : * : * : - 4", -4),
        ("R: * : * : * : .5 0.5", 0.5),
        ("R: * : * : -3 -3 -3 -3", -3),
    ],
)
def test_signs_stars_and_colons_before_numbers(read, entry, wanted):
    np.testing.assert_array_equal(read(HEAD + ROWS + entry).reward, wanted)


def test_a_colon_before_a_row_or_a_matrix(read):
    moves = "T: go : a : 0.25 0.75\nT: go : b : uniform\nT: stay : identity\n"
    model = read(HEAD + moves + "O: * : 0.5 0.5 0.5 0.5\n")
    np.testing.assert_array_equal(model.transition[:, 0], [[0.25, 0.75], [0.5, 0.5]])
    # A whole number after a colon is a state, as the format says.
    moves = "T: go : a : 1 1\nT: go : b : 0 1\nT: stay identity\n"
    model = read(HEAD + moves + "O: * uniform\n")
    np.testing.assert_array_equal(model.transition[:, 0], [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("start: a c\n", [0.5, 0, 0.5]),
        ("start: c b a\n", [1 / 3] * 3),
        ("start include: 0 c\n", [0.5, 0, 0.5]),
        ("start exclude: b\n", [0.5, 0, 0.5]),
        ("start: 0 0 1\n", [0, 0, 1]),
        ("start:\n0.5\n0.25\n0.25\n", [0.5, 0.25, 0.25]),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_several_start_states_before_or_after_their_names(read, start, wanted, first):
    head = HEAD.replace("a b", "a b c")
    text = start + head + ROWS if first else head + ROWS + start
    np.testing.assert_array_equal(read(text).initial, wanted)


@pytest.mark.parametrize(
    ("word", "sign"), [("rewards", 1), ("costs", -1), ("Cost", -1), ("REWARD", 1)]
)
def test_words_for_the_values(read, word, sign):
    text = HEAD.replace("reward", word) + ROWS + "R: go : * : * : * 2\n"
    assert read(text).reward[0, 0] == 2 * sign


@pytest.mark.parametrize(("word", "sign"), [("costs", -1), ("rewards", 1)])
def test_a_line_for_costs(read, word, sign):
    text = HEAD.replace("values: reward", f"{word}:") + ROWS
    assert read(text + "R: go : * : * : * 2\n").reward[0, 0] == 2 * sign


def test_the_preamble_in_any_order_and_after_entries(read):
    lines = HEAD.splitlines(keepends=True)
    moves = "T: * identity\n"
    wanted = read(HEAD + ROWS).transition
    for text in (
        "".join(reversed(lines)) + ROWS,
        lines[2] + lines[3] + moves + lines[4] + "O: * uniform\n" + lines[1] + lines[0],
    ):
        model = read(text)
        assert model.discount == 0.9
        np.testing.assert_array_equal(model.transition, wanted)


def test_commas_between_names(tmp_path):
    path = tmp_path / "model.POMDP"
    head = HEAD.replace("a b", "(0,0), (0,1) ,x,y").replace("go stay", "go,stay")
    path.write_text(head + ROWS + "R: go : (0,1) : * : * 3\n")
    found = load_with_names(path)
    assert found.states == ("(0,0)", "(0,1)", "x", "y")
    assert found.actions == ("go", "stay")
    assert found.model.reward[1, 0] == 3


@pytest.mark.parametrize(
    "data",
    [
        LATIN.encode("latin-1"),
        b"\xef\xbb\xbf" + LATIN.encode(),
        gzip.compress(LATIN.encode("cp1252"), mtime=0),
        LATIN.replace("\n", "\r\n").encode("latin-1"),
    ],
    ids=["latin", "mark", "gzip", "windows"],
)
@pytest.mark.parametrize("name", ["model.POMDP", "model.pomdp.gz", "model.txt"])
def test_encodings_of_comments_and_compression(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    assert load_model(path).discount == 0.9


MDP_FILE = """# An MDP has no observations
discount: 0.5
values: reward
states: a b
actions: go stay
start: a
T: go
0.25 0.75
0 1
T: stay identity
R: go : a : b 4
R: go : b : * : * 1
R: stay : a
2 8
R: stay : b : b : 3
"""


def test_a_file_without_observations_is_an_mdp(read, tmp_path):
    model = read(MDP_FILE)
    assert isinstance(model, MDP)
    np.testing.assert_array_equal(model.reward, [[3, 2], [1, 3]])
    np.testing.assert_array_equal(model.transition[:, 0], [[0.25, 0.75], [0, 1]])
    # By hand: V_1 = (3, 3), V_0(a) = max(3, 2) + V_1(b or a) / 2.
    assert float(solve(model, horizon=2).value) == 4.5
    matrix = MDP_FILE.partition("R:")[0] + "R: * : a\n0 4\nR: * : b : * 7\n"
    np.testing.assert_array_equal(read(matrix).reward, [[3, 0], [7, 7]])
    whole = MDP_FILE.partition("R:")[0] + "R: go\n1 5\n3 4\nR: stay : 1.5 1\n2 0.5\n"
    np.testing.assert_array_equal(read(whole).reward, [[4, 1.5], [4, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD.replace("values: reward\n", ""), "`values:` is not given before the end"),
        (HEAD + "values: cost", "line 6: `values:` is given twice, first in line 2"),
        (
            HEAD + ROWS + "states: 2",
            "line 8: `states:` is given twice, first in line 3",
        ),
        (HEAD + "start: a\nstart: b\n", "line 7: `start:` is given twice"),
        (
            HEAD.replace("values: reward", "costs: 3 4"),
            "line 2: `costs:` has no content",
        ),
        (
            HEAD.replace("values: reward", "costs: 3 4"),
            "write `values: cost`, and each",
        ),
        (HEAD + "costs:\n", "line 6: `values:` is given twice"),
        (
            HEAD + ROWS + "R: * : * : * : * 1_0",
            "line 8: expected a reward, found `1_0`",
        ),
        (HEAD + ROWS + "R: * : * : * : * 1_0", "write `10`"),
        (HEAD + ROWS + "R: * : * : * : * \u0661", "write the digits 0 to 9"),
        (HEAD + ROWS + "R: * : * : * : * 0,5", "write `0.5`, with a decimal point"),
        (HEAD + ROWS + "R: * : * : * 1, 2", "separate numbers by spaces"),
        (HEAD + ROWS + "R: * : * : * : * 1/3", "write a decimal number"),
        (HEAD + ROWS + "R: * : * : * : * 0x1A", "expected a reward, found `0x1A`"),
        (HEAD + ROWS + "R: * : * : * : * infinity", "a reward is `infinity`: must be"),
        (HEAD + ROWS + "T: * : \u0661 : a 1", "unknown state `\u0661`"),
        (HEAD.replace("a b", "\u0663"), "must be one whole number, or names"),
        (HEAD.replace("a b", "1_0"), "must be one whole number, or names"),
        (HEAD.replace("a b", "a *"), "has the name `*`, which is reserved"),
        (HEAD.replace("actions", "discount"), "line 4: `discount:` is given twice"),
        (HEAD + "start: c\n" + ROWS, "line 6: unknown state `c` of `start`: write a"),
        (HEAD + "start: 1 0 0\n" + ROWS, "line 6: `start` has 3 numbers, expected one"),
        (
            HEAD + "start: 1.5 -0.5\n" + ROWS,
            "line 6: a probability of `start` is `1.5`",
        ),
        (HEAD + "start:\n" + ROWS, "line 6: `start` has no states"),
        (HEAD + "start exclude: a b\n" + ROWS, "must include a state, found none"),
        (
            "T: * identity\n" + HEAD,
            "line 1: `states:` is not given before the first `T",
        ),
        (
            MDP_FILE + "O: * uniform",
            "`observations:` is not given before the first `O:`",
        ),
        (
            MDP_FILE + "observations: 2",
            "`observations:` must come before the first `R:`",
        ),
        (
            MDP_FILE + "R: go : a : b : 0 4",
            "line 16: expected an entry, found the extra",
        ),
        (HEAD.encode("utf-16"), "line 1: UTF-16 text: save the file as UTF-8"),
        (HEAD.replace("a b", "\xe9 b").encode("latin-1"), "line 3: not UTF-8 text"),
        (
            gzip.compress(HEAD.encode(), mtime=0)[:40],  # the time would be in the name
            "damaged gzip file: Compressed file ended",
        ),
        ("<?xml version='1.0'?><pomdpx/>", "rename the file to `.pomdpx`"),
    ],
)
def test_what_the_format_does_not_allow_says_how_to_write_it(read, text, message):
    with pytest.raises(PomdpFileError) as error:
        read(text)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert "model.POMDP`" in str(error.value)


def corridor(states, actions, symbols):
    """A ring with rewards R(a, s, s', o), nearly all of them zero."""
    lines = [
        "discount: 0.95\nvalues: reward",
        f"states: {states}\nactions: {actions}\nobservations: {symbols}",
        "R: * : * : * : * -1",
    ]
    for a in range(actions):
        for s in range(states):
            after = (s + a) % states
            lines += [f"T: {a} : {s} : {s} 0.5", f"T: {a} : {s} : {after} 0.5"]
            if a == 0:
                lines[-2:] = [f"T: 0 : {s} : {s} 1.0"]
            lines.append(f"O: {a} : {s} : {s % symbols} 1.0")
    lines.append(f"R: 1 : * : {states - 1} : * 100")
    lines.append(f"R: 1 : 5 : 6 : {6 % symbols} 40")
    return "\n".join(lines)


@pytest.mark.slow
def test_rewards_of_many_states_are_read_without_their_array(tmp_path):
    states, actions, symbols = 150, 3, 150
    path = tmp_path / "ring.POMDP"
    path.write_text(corridor(states, actions, symbols))
    tracemalloc.start()
    model = load_pomdp(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # R(a, s, s', o) alone would take 8 A S S O = 81 MB; transitions and observations
    # take 8 A S (S + O) = 1 MB each time they are copied or checked.
    assert peak < 15e6
    wanted = np.full((states, actions), -1.0)
    wanted[states - 2, 1] = 0.5 * 100 - 0.5
    wanted[states - 1, 1] = 0.5 * 100 - 0.5
    wanted[5, 1] = 0.5 * 40 - 0.5
    np.testing.assert_array_equal(model.reward, wanted)


@pytest.mark.slow
def test_sixteen_hundred_states_fit(tmp_path):
    path = tmp_path / "ring.POMDP"
    path.write_text(corridor(1600, 8, 100))
    model = load_pomdp(path)
    assert isinstance(model, POMDP) and model.reward[5, 1] == 19.5
    assert float(np.asarray(model.reward).sum()) == -1600 * 8 + 2 * 50.5 + 20.5


def test_a_model_too_large_for_the_memory_is_refused_before_it_is_made(
    read, monkeypatch
):
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: 4 * 10**9)
    with pytest.raises(PomdpFileError) as error:
        read(HEAD.replace("a b", "20000") + ROWS.replace("identity", "uniform"))
    # Two actions; 40 bytes for each cell.
    assert (
        "a table with 40000 rows of 20000 equal numbers needs 32.0 GB of memory, found "
        "4.0 GB available" in str(error.value)
    )
