"""PomdpX: the products of factored tables, every form of entry, and what is refused."""

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import ROUNDING

from sdm.solvers_jax import MDP, POMDP, load_model
from sdm.tasks.cassandra_words import PomdpFileError
from sdm.tasks.model_files import load_with_names
from sdm.tasks.pomdpx import pomdpx_kind, read_pomdpx

# Every combination of one hidden and one visible variable, and of two reward variables.
VARIABLES = """
<StateVar vnamePrev="place_0" vnameCurr="place_1" fullyObs="true">
  <NumValues>2</NumValues></StateVar>
<StateVar vnamePrev="rock_0" vnameCurr="rock_1">
  <ValueEnum>good bad</ValueEnum></StateVar>
<ObsVar vname="sensor"><ValueEnum>high low</ValueEnum></ObsVar>
<ActionVar vname="act"><ValueEnum>go look</ValueEnum></ActionVar>
<RewardVar vname="pay"/>
"""
PARTS = {
    "Discount": "0.9",
    "Variable": VARIABLES,
    "InitialStateBelief": """
<CondProb><Var>place_0</Var><Parent>null</Parent><Parameter type="TBL">
<Entry><Instance>-</Instance><ProbTable>0.25 0.75</ProbTable></Entry>
</Parameter></CondProb>
<CondProb><Var>rock_0</Var><Parent>place_0</Parent><Parameter>
<Entry><Instance>* -</Instance><ProbTable>uniform</ProbTable></Entry>
<Entry><Instance>s1 bad</Instance><ProbTable>0.9</ProbTable></Entry>
<Entry><Instance>s1 good</Instance><ProbTable>0.1</ProbTable></Entry>
</Parameter></CondProb>
""",
    "StateTransitionFunction": """
<CondProb><Var>rock_1</Var><Parent>act place_1 rock_0</Parent><Parameter type="TBL">
<Entry><Instance>* * - -</Instance><ProbTable>identity</ProbTable></Entry>
<Entry><Instance>go 1 good -</Instance><ProbTable>0.7 0.3</ProbTable></Entry>
</Parameter></CondProb>
<CondProb><Var>place_1</Var><Parent>act place_0</Parent><Parameter type="TBL">
<Entry><Instance>look - -</Instance><ProbTable>identity</ProbTable></Entry>
<Entry><Instance>go - -</Instance><ProbTable>0.2 0.8 0.6 0.4</ProbTable></Entry>
</Parameter></CondProb>
""",
    "ObsFunction": """
<CondProb><Var>sensor</Var><Parent>act rock_1</Parent><Parameter type="TBL">
<Entry><Instance>go * - </Instance><ProbTable>uniform</ProbTable></Entry>
<Entry><Instance>look - -</Instance><ProbTable>0.8 0.2 0.1 0.9</ProbTable></Entry>
</Parameter></CondProb>
""",
    "RewardFunction": """
<Func><Var>pay</Var><Parent>act place_1 sensor</Parent><Parameter type="TBL">
<Entry><Instance>* * *</Instance><ValueTable>-1</ValueTable></Entry>
<Entry><Instance>go s1 -</Instance><ValueTable>10 -2.5</ValueTable></Entry>
</Parameter></Func>
""",
}


def document(**changes):
    parts = PARTS | changes
    inside = "".join(f"<{name}>{x}</{name}>\n" for name, x in parts.items() if x)
    start = '<?xml version="1.0"?>\n<pomdpx version="1.0" id="own">\n'
    return f"{start}{inside}</pomdpx>\n"


@pytest.fixture
def write(tmp_path):
    def save(text, name="own.pomdpx", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return save


def by_hand():
    """The same model, with a loop over all values of all variables."""
    place = {"go": [[0.2, 0.8], [0.6, 0.4]], "look": np.eye(2)}
    sense = {"go": np.full((2, 2), 0.5), "look": [[0.8, 0.2], [0.1, 0.9]]}
    transition, reward = np.zeros((4, 2, 4)), np.zeros((4, 2))
    observation = np.zeros((2, 4, 4))
    acts = ["go", "look"]
    for p, r, a, p1, r1, o in itertools.product(range(2), repeat=6):
        rock = np.eye(2)[r][r1]
        if acts[a] == "go" and p1 == 1 and r == 0:
            rock = [0.7, 0.3][r1]
        chance, shown = place[acts[a]][p][p1] * rock, sense[acts[a]][r1][o]
        transition[2 * p + r, a, 2 * p1 + r1] = chance
        observation[a, 2 * p1 + r1, 2 * p1 + o] = shown
        paid = (10, -2.5)[o] if acts[a] == "go" and p1 == 1 else -1
        reward[2 * p + r, a] += chance * shown * paid
    initial = [0.125, 0.125, 0.075, 0.675]
    return transition, observation, reward, np.array(initial)


def test_factored_tables_are_the_product_by_hand(write):
    found = load_with_names(write(document()))
    transition, observation, reward, initial = by_hand()
    model = found.model
    for name, wanted in (
        ("transition", transition),
        ("observation", observation),
        ("reward", reward),
        ("initial", initial),
    ):
        np.testing.assert_allclose(getattr(model, name), wanted, atol=ROUNDING)
    assert model.discount == 0.9
    # The visible place is seen before the first action, and the sensor is not.
    np.testing.assert_array_equal(
        model.initial_observation, np.array([[1, 0, 0, 0]] * 2 + [[0, 0, 1, 0]] * 2)
    )
    assert found.states == ("s0.good", "s0.bad", "s1.good", "s1.bad")
    assert found.actions == ("go", "look")
    assert found.observations == ("s0.high", "s0.low", "s1.high", "s1.low")


def test_a_place_known_at_the_start_needs_no_first_observation(write):
    known = PARTS["InitialStateBelief"].replace("0.25 0.75", "0 1")
    model = load_model(write(document(InitialStateBelief=known)))
    assert model.initial_observation is None
    np.testing.assert_allclose(model.initial, [0, 0, 0.1, 0.9])


def test_compression_encodings_and_kinds(write):
    plain = read_pomdpx(write(document()))
    packed = write(gzip.compress(document().encode()), "own.pomdpx.gz")
    latin = document(Description="Gel\xe4nde").replace(
        '"1.0"?', '"1.0" encoding="ISO-8859-1"?'
    )
    for path in (packed, write(latin, "latin.pomdpx", "latin-1")):
        again = load_with_names(path)
        assert again.states == plain.states and pomdpx_kind(path) == "POMDP"
        np.testing.assert_array_equal(again.model.transition, plain.model.transition)


NAMES = {"s": "xyz", "o": "uvw"}


@st.composite
def factored(draw):
    """Sizes, visibility, and a table for each variable given random parents."""
    sizes = {f"x{i}": draw(st.integers(1, 3)) for i in range(draw(st.integers(1, 2)))}
    seen = {name: draw(st.booleans()) for name in sizes}
    sizes |= {f"y{i}": draw(st.integers(1, 2)) for i in range(draw(st.integers(0, 2)))}
    sizes["a"] = draw(st.integers(1, 2))
    states = [name for name in sizes if name[0] == "x"]
    symbols = [name for name in sizes if name[0] == "y"]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def parents(known):
        return [name for name in known if random.random() < 0.5]

    def table(above, name):
        shape = [sizes[x.removesuffix("'")] for x in (*above, name)]
        chance = random.dirichlet(np.ones(shape[-1]), shape[:-1])
        sparse = np.where(chance < 0.3, 0, chance)
        sparse[..., -1] += 1 - sparse.sum(-1)
        return sparse

    after = [f"{name}'" for name in states]
    tables = {}
    for i, name in enumerate(states):
        above = parents(states[:i])
        tables[name] = (above, table(above, name))
    for i, name in enumerate(after):
        above = parents(["a", *states, *after[:i]])
        tables[name] = (above, table(above, name))
    for i, name in enumerate(symbols):
        above = parents(["a", *after, *symbols[:i]])
        tables[name] = (above, table(above, name))
    rewards = []
    for _ in range(random.integers(1, 3)):
        above = parents(["a", *states, *after, *symbols])
        shape = [sizes[x.removesuffix("'")] for x in above]
        rewards.append((above, random.normal(size=shape)))
    return sizes, seen, states, symbols, tables, rewards


def rendered(sizes, seen, states, symbols, tables, rewards):
    """The model as a file, with every second axis of a table written out."""
    text = ""
    for name in states:
        text += (
            f'<StateVar vnamePrev="{name}" vnameCurr="{name}\'" '
            f'fullyObs="{str(seen[name]).lower()}"><NumValues>{sizes[name]}</NumValues>'
            "</StateVar>"
        )
    for name in symbols:
        text += f'<ObsVar vname="{name}"><NumValues>{sizes[name]}</NumValues></ObsVar>'
    text += f'<ActionVar vname="a"><NumValues>{sizes["a"]}</NumValues></ActionVar>'
    text += "".join(f'<RewardVar vname="r{i}"/>' for i in range(len(rewards)))

    def entries(table, kind):
        table = np.asarray(table)
        lines = ""
        for at in itertools.product(*(range(n) for n in table.shape[::2])):
            where, index = [], []
            for axis in range(table.ndim):
                fixed = axis % 2 == 0
                where.append(str(at[axis // 2]) if fixed else "-")
                index.append(at[axis // 2] if fixed else slice(None))
            numbers = " ".join(map(repr, table[tuple(index)].ravel().tolist()))
            lines += (
                f"<Entry><Instance>{' '.join(where)}</Instance>"
                f"<{kind}>{numbers}</{kind}></Entry>"
            )
        return f"<Parameter>{lines}</Parameter>"

    def part(tag, name, above, table, kind):
        up = " ".join(above) or "null"
        body = f"<Var>{name}</Var><Parent>{up}</Parent>{entries(table, kind)}"
        return f"<{tag}>{body}</{tag}>"

    def section(names):
        return "".join(
            part("CondProb", n, *tables[n], "ProbTable") for n in names[::-1]
        )

    pay = "".join(
        part("Func", f"r{i}", *reward, "ValueTable") for i, reward in enumerate(rewards)
    )
    return document(
        Variable=text,
        InitialStateBelief=section(states),
        StateTransitionFunction=section([f"{n}'" for n in states]),
        ObsFunction=section(symbols),
        RewardFunction=pay,
    )


def enumerated(sizes, seen, states, symbols, tables, rewards):
    """P, Z, r and the initial distribution by a loop over all values."""
    names = ["a", *states, *(f"{n}'" for n in states), *symbols]
    size = [sizes[name.removesuffix("'")] for name in names]
    shown = [f"{n}'" for n in states if seen[n]] + symbols

    def number(value, of):
        found = 0
        for name in of:
            found = found * sizes[name.removesuffix("'")] + value[name]
        return found

    def chance(value, of):
        return np.prod(
            [
                tables[name][1][tuple(value[x] for x in (*tables[name][0], name))]
                for name in of
            ]
        )

    count = int(np.prod([sizes[n] for n in states]))
    symbol = int(np.prod([sizes[n.removesuffix("'")] for n in shown]))
    transition = np.zeros((count, sizes["a"], count))
    observation = np.zeros((sizes["a"], count, symbol))
    reward, initial = np.zeros((count, sizes["a"])), np.zeros(count)
    after = [f"{n}'" for n in states]
    for values in itertools.product(*map(range, size)):
        value = dict(zip(names, values, strict=True))
        s, a, n = number(value, states), value["a"], number(value, after)
        transition[s, a, n] = chance(value, after)
        observation[a, n, number(value, shown)] = chance(value, symbols)
        initial[s] = chance(value, states)
        paid = sum(table[tuple(value[x] for x in up)] for up, table in rewards)
        reward[s, a] += transition[s, a, n] * chance(value, symbols) * paid
    return transition, observation, reward, initial


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(factored())
def test_random_factors_are_their_product(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("factors") / "own.pomdpx"
    path.write_text(rendered(*parts))
    model = load_model(path)
    transition, observation, reward, initial = enumerated(*parts)
    np.testing.assert_allclose(model.transition, transition, atol=ROUNDING)
    np.testing.assert_allclose(model.reward, reward, atol=ROUNDING)
    np.testing.assert_allclose(model.initial, initial, atol=ROUNDING)
    visible = all(parts[1].values())
    assert type(model) is (MDP if visible else POMDP)
    assert pomdpx_kind(path) == type(model).__name__
    if not visible:
        np.testing.assert_allclose(model.observation, observation, atol=ROUNDING)


BOMB = '<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]>\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + document()[22:], "line 1: `<!DOCTYPE …>` is not supported"),
        ("discount: 0.9", "line 1: not valid XML"),
        ("", "not valid XML: no element found"),
        ("<a>&lol;</a>", "not valid XML: undefined entity"),
        ("<a>" * 200, "more than 100 nested elements"),
        ("<model></model>", "line 1: `<model>`: not a PomdpX file"),
        (document(Variable=""), "`<pomdpx>`: `<Variable>` is missing"),
        (document(Discount="1.5"), "`<Discount>`: must be a number in [0, 1], found"),
        (document(Horizon="10"), "`<Horizon>`: not supported in `<pomdpx>`"),
        (document(ObsFunction=""), "`<ObsFunction>` is missing"),
        (document().replace('"TBL"', '"DD"', 1), 'type="DD" is not supported: write'),
        (document().replace("<Entry><I", "<DAG/><Entry><I", 1), "`<DAG>`: not support"),
        (document().replace("go look", "go go"), "must list distinct values"),
        (document().replace("<NumValues>2", "<NumValues>0"), "must be a whole number"),
        (document().replace("<NumValues>2", "<NumValues>\u0662"), "must be a whole"),
        (document().replace('vname="act"', 'vname="pay"'), "have the name `pay`"),
        (document().replace('fullyObs="true"', 'fullyObs="yes"'), "found `yes`"),
        (document().replace("0.25 0.75", "0.25"), "must have 2 numbers, found 1"),
        (document().replace("0.25 0.75", "0.25 0.8"), "`place_0` sum to 1.05, not 1"),
        (document().replace("0.25 0.75", "0.2_5 0.75"), "expected a probability in"),
        (document().replace("0.7 0.3", "1.7 -0.7"), "expected a probability in [0, 1]"),
        (document().replace("0.7 0.3", "0.7 0.2"), "act=go place_1=s1 rock_0=good"),
        (document().replace("10 -2.5", "10 nan"), "expected a number, found `nan`"),
        (document().replace("go 1 good -", "go 2 good -"), "unknown value `2` of `pla"),
        (document().replace("go 1 good -", "go good -"), "`-` for each of act place_1"),
        (
            document().replace("go * -", "go - *"),
            "`uniform` needs `-` for the variable",
        ),
        (
            document().replace(
                "look - -</Instance><ProbTable>id", "look s0 -</Instance><ProbTable>id"
            ),
            "`identity` needs `-` for two",
        ),
        (document().replace("act rock_1<", "act rock_2<"), "unknown variable `rock_2`"),
        (
            document().replace("act rock_1<", "act rock_0<"),
            "`sensor` depends on `rock_0`",
        ),
        (document().replace("act place_0<", "act rock_1<"), "without cycles"),
        (document().replace("<Var>rock_1", "<Var>place_1"), "`place_1` is given twice"),
        (document().replace("<Var>pay", "<Var>act"), "`act` is not a `<RewardVar>`"),
        (document().replace("<Var>pay", "<Var>pay act"), "must name one variable"),
    ],
)
def test_an_error_says_where_and_what(write, text, message):
    path = write(text)
    with pytest.raises(PomdpFileError) as error:
        read_pomdpx(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert f"`{path}`, line " in str(error.value)


def test_a_model_too_large_for_the_memory_is_refused_before_it_is_made(
    write, monkeypatch
):
    monkeypatch.setattr("sdm.storage.memory.available_memory", lambda: 10**9)
    large = document().replace("<NumValues>2", "<NumValues>20000")
    with pytest.raises(PomdpFileError, match=r"needs [0-9,.]+ GB of memory, found 1.0"):
        read_pomdpx(write(large))


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, len(document())),
    length=st.integers(0, 60),
    instead=st.sampled_from(
        ["", "*", "-", "1", "<a/>", "&amp;", "null", "uniform", "-1"]
    ),
)
def test_whatever_is_in_a_file_it_is_a_model_or_an_error(
    tmp_path_factory, start, length, instead
):
    text = document()
    path = tmp_path_factory.mktemp("fuzz") / "own.pomdpx"
    path.write_text(text[:start] + instead + text[start + length :])
    try:
        model = read_pomdpx(path).model
    except PomdpFileError as error:
        assert str(path) in str(error)
    else:
        assert np.isfinite(model.reward).all()
