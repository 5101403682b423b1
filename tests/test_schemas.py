"""Text and back: `parse` inverts `render` in every schema, for every family."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_schemas import ALL, COMPACT, PAPER, WORDS, plain_schema

from sdm.llm.episode import NOTHING, Episode, render_prompt
from sdm.llm.schema import Contents, make_schema, schemas
from sdm.tasks import families, load_family
from sdm.tasks.family import HIDDEN, KINDS, Component

# Families that need no argument, in every kind, with and without rewards.
POSED = [
    (name, kind, rewards)
    for name, factory in families().items()
    if name not in ("folder", "gymnasium")
    for kind in KINDS
    if kind in factory().kinds
    for rewards in (False, True)
]


@st.composite
def episodes(draw, symbols, actions, rewards, *, blind=False):
    """Closed and open episodes; with `blind`, some see nothing at first."""
    length, extra = draw(st.integers(0, 6)), draw(st.integers(0, 1))

    def several(numbers, count):
        return tuple(draw(st.lists(numbers, min_size=count, max_size=count)))

    seen = several(st.integers(0, symbols - 1), length + extra)
    if blind and seen and draw(st.booleans()):
        seen = (NOTHING, *seen[1:])
    done = several(st.integers(0, actions - 1), length)
    return Episode(seen, done, None if rewards is None else several(rewards, length))


# Rewards that two decimals can hold, so that rounding is not in the way.
cents = st.integers(-500, 500).map(lambda x: round(x / 100, 2))


@pytest.mark.parametrize("name", schemas())
@pytest.mark.parametrize(("family", "kind", "rewards"), POSED)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_family_is_read_back_in_every_schema(name, family, kind, rewards, data):
    spaces = load_family(family).spaces
    levels = spaces.levels(kind)
    schema = make_schema(name, spaces, kind, rewards=rewards)
    tell = bool(levels) or kind in HIDDEN or spaces.random_rewards
    written = rewards and (tell or name != "compact")
    paid = st.sampled_from(levels) if levels else cents
    sizes = (spaces.symbols(kind), len(spaces.actions))
    episode = data.draw(episodes(*sizes, paid if written else None, blind=True))
    text = schema.render(episode)
    parsed = schema.parse(text)
    assert (parsed.observations, parsed.actions) == (
        episode.observations,
        episode.actions,
    )
    if written and levels and name == "compact":
        assert parsed.rewards == episode.rewards
    elif written:
        wanted = [round(r, 2) for r in episode.rewards]
        assert list(parsed.rewards) == pytest.approx(wanted, abs=1e-12)  # rounding
    else:
        assert parsed.rewards is None
    spans = [text[a:b] for a, b in schema.action_spans(text)]
    assert spans == [schema.answer(action).strip() for action in episode.actions]


WITHOUT_REWARDS = {
    f"{name}, no rewards": plain_schema(name, rewards=False) for name in ALL
}
EITHER = {**ALL, **WITHOUT_REWARDS}


@pytest.mark.parametrize("schema", EITHER.values(), ids=EITHER)
@settings(max_examples=30, deadline=None)
@given(episode=episodes(150, 26, cents).filter(lambda e: e.is_open))
def test_an_open_episode_and_an_answer_begin_the_closed_one(schema, episode):
    closed = Episode(
        episode.observations, (*episode.actions, 7), (*episode.rewards, 1.0)
    )
    begun = schema.render(episode) + schema.answer(7) + schema.terminator
    assert schema.render(closed).startswith(begun)


def test_what_each_schema_writes():
    episode = Episode((3, 4, 5), (0, 2), (-0.05, 4 / 9))
    assert PAPER.render(episode) == (
        "<O_1> 3, <A_1> 0, <R_1> -0.05, <O_2> 4, <A_2> 2, <R_2> 0.44, <O_3> 5, <A_3>"
    )
    assert COMPACT.render(episode) == "3a4c5"
    assert WORDS.render(episode) == (
        "seen 3, do 0, reward -0.05. seen 4, do 2, reward 0.44. seen 5,"
    )
    assert render_prompt(COMPACT, [Episode((1,), (1,))], episode) == "1b\n3a4c5"
    zero = Episode((1,), (0,), (-0.001,))
    assert PAPER.render(zero) == "<O_1> 1, <A_1> 0, <R_1> 0.00"


def test_rewards_are_written_where_they_are_observed():
    energy, episode = (
        load_family("energy").spaces,
        Episode((3, 4), (2, 0), (3 / 9, -0.05)),
    )
    texts = {
        (name, rewards): make_schema(name, energy, "pomdp", rewards=rewards).render(
            episode
        )
        for name in ("paper", "compact", "words")
        for rewards in (False, True)
    }
    assert texts["paper", False] == "<O_1> 3, <A_1> 2, <O_2> 4, <A_2> 0,"
    assert texts["paper", True].endswith("<A_2> 0, <R_2> -0.05")
    assert texts["compact", False] == "3c4a"
    assert texts["compact", True] == "3c_e4a_a"  # levels: -0.05, 0, 1/9, …
    assert texts["words", False] == "energy 3, work. energy 4, charge."
    assert (
        texts["words", True]
        == "energy 3, work, reward 0.33. energy 4, charge, reward -0.05."
    )
    # Of an observed state and action they tell nothing new.
    assert make_schema("compact", energy, "mdp", rewards=True).render(episode) == "3c4a"


@pytest.mark.parametrize(
    ("levels", "unlisted"), [((), True), (tuple(map(float, range(27))), False)]
)
def test_rewards_without_letters_are_written_in_hundredths(levels, unlisted):
    one = Contents((Component("s", 9),), ("x", "y"), True, levels, unlisted)
    schema = schemas()["compact"](one)
    episode = Episode((3, 0, 8), (1, 0), (-0.054, 12.0))
    assert schema.render(episode) == "3b-5,0a1200,8"
    parsed = schema.parse("3b-5,0a1200,8")
    assert parsed == Episode((3, 0, 8), (1, 0), (-0.05, 12.0))
    assert schema.render(Episode((3,), (1,), (-0.001,))) == "3b0,"
    for wrong in ("3b", "3b5", "3b0.5,", "3b_c"):
        with pytest.raises(ValueError, match="observation, letter and mark"):
            schema.parse(wrong)


def test_several_components_are_written_one_by_one():
    episode = Episode((34, 34, 7), (0, 2), (1.0, 0.0))
    spaces = load_family("darkroom").spaces
    compact, paper = (
        make_schema(name, spaces, "mdp", rewards=True) for name in ("compact", "paper")
    )
    assert compact.render(episode) == "34a.34c07"
    wide = load_family("darkroom", {"size": 12}).spaces
    wide = make_schema("compact", wide, "mdp", rewards=True)
    assert wide.render(episode) == "0210a.0210c0007"
    assert paper.render(episode) == (
        "<O_1> 3 4, <A_1> 0, <R_1> 1.00, "
        "<O_2> 3 4, <A_2> 2, <R_2> 0.00, <O_3> 0 7, <A_3>"
    )
    for wrong in ("3a", "34a..", "34a,34a"):
        with pytest.raises(ValueError, match="observation, letter and mark"):
            compact.parse(wrong)
    for schema, text in ((wide, "0012b"), (paper, "<O_1> 3 10, <A_1>")):
        with pytest.raises(ValueError, match="must be below 1"):
            schema.parse(text)
    with pytest.raises(ValueError, match=r"one of the 2 .* found 0\.5"):
        compact.render(Episode((1,), (0,), (0.5,)))
    with pytest.raises(ValueError, match="an episode without rewards"):
        compact.render(Episode((1,), (0,)))


@pytest.mark.parametrize(
    "text",
    [
        "<O_1> 3, <A_1> 1",
        "<O_1> 3, <A_2> 1, <R_1> 0.10",
        "<O_2> 3, <A_2> 1, <R_2> 0.10",
        "<O_1> 3, <A_1> 1, <R_1> 0.1",
        "<O_1> 3, <A_1> 1, <R_1> 0.10, <O_2> 4, <A_3>",
        "<O_1> -3, <A_1>",
        "<A_1>",
        "3a4b",
    ],
)
def test_the_papers_parser_refuses_what_is_out_of_place(text):
    with pytest.raises(ValueError, match=r"field|middle|last"):
        PAPER.parse(text)


@pytest.mark.parametrize("text", ["a3", "3ab", "3A", "3 a", "<O_1> 3", "3a\n4b", "3-a"])
def test_the_compact_parser_refuses_what_does_not_alternate(text):
    with pytest.raises(ValueError, match="observation, letter and mark"):
        COMPACT.parse(text)


@pytest.mark.parametrize(
    "text", ["seen 3", "seen 3, do 0.", "seen 3, do 999, reward 1.00.", "do 0, seen 3,"]
)
def test_the_parser_of_words_refuses_what_is_no_sentence(text):
    with pytest.raises(ValueError, match="out of place"):
        WORDS.parse(text)


@pytest.mark.parametrize(
    ("seen", "actions", "message"),
    [
        ("a, b", ("x", "y"), "must not be empty .* found 'a, b'"),
        ("seen", ("x", "x"), "must be distinct, found x, x"),
        ("reward", ("x", "y"), "must not be empty .* found 'reward'"),
    ],
)
def test_names_that_words_cannot_tell_apart_are_refused(seen, actions, message):
    with pytest.raises(ValueError, match=message):
        schemas()["words"](Contents((Component(seen, 3),), actions, False))


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="1 observations and 2 actions"):
        Episode((1,), (1, 2))
    with pytest.raises(ValueError, match="0 rewards for 1 actions"):
        Episode((1,), (1,), ())
    with pytest.raises(ValueError, match="counted from 0"):
        Episode((1, NOTHING), (0,))
    with pytest.raises(ValueError, match="writes rewards"):
        PAPER.render(Episode((1,), (1,)))
    with pytest.raises(ValueError, match="found action 26"):
        COMPACT.answer(26)
    with pytest.raises(
        ValueError, match="at most 26 actions, found 27: use the schema"
    ):
        plain_schema("compact", actions=27)
    with pytest.raises(ValueError, match="the last field must end with a comma"):
        plain_schema("paper", rewards=False).parse("<O_1> 3, <A_1> 1")
    with pytest.raises(ValueError, match="unknown, found `prose`"):
        make_schema("prose", load_family("energy").spaces, "mdp", rewards=True)
