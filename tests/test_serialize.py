"""Text and back: `parse` inverts `render` in both schemas, to the character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdm.llm.serialize import SCHEMAS, Episode, render_prompt, schema_for

PAPER, COMPACT = SCHEMAS["paper"], SCHEMAS["compact"]


@st.composite
def episodes(draw, actions, rewards):
    length = draw(st.integers(0, 12))
    numbers = st.integers(0, 150)
    steps = {"min_size": length, "max_size": length}
    extra = draw(st.integers(0, 1))
    return Episode(
        tuple(
            draw(st.lists(numbers, min_size=length + extra, max_size=length + extra))
        ),
        tuple(draw(st.lists(st.integers(0, actions - 1), **steps))),
        tuple(draw(st.lists(rewards, **steps))),
    )


# Rewards that two decimals can hold, so that rounding is not in the way.
cents = st.integers(-500, 500).map(lambda x: round(x / 100, 2))


@given(episodes(actions=150, rewards=cents))
def test_the_papers_schema_is_read_back(episode):
    assert PAPER.parse(PAPER.render(episode)) == episode


@given(episodes(actions=26, rewards=cents))
def test_the_compact_schema_is_read_back_without_rewards(episode):
    text = COMPACT.render(episode)
    assert COMPACT.parse(text) == Episode(episode.observations, episode.actions)


@st.composite
def darkroom_episodes(draw, size):
    length = draw(st.integers(0, 12))
    extra = draw(st.integers(0, 1))

    def several(numbers, more=0):
        return tuple(
            draw(st.lists(numbers, min_size=length + more, max_size=length + more))
        )

    return Episode(
        several(st.integers(0, size**2 - 1), extra),
        several(st.integers(0, 4)),
        several(st.sampled_from([0.0, 1.0])),
    )


@given(
    st.sampled_from([2, 10, 12]).flatmap(
        lambda n: st.tuples(st.just(n), darkroom_episodes(n))
    )
)
def test_episodes_on_a_grid_are_read_back_with_their_rewards(sized):
    size, episode = sized
    for name in SCHEMAS:
        schema = schema_for(name, size)
        text = schema.render(episode)
        assert schema.parse(text) == episode
        spans = schema.action_spans(text)
        assert len(spans) == len(episode.actions)
        wanted = [schema.answer(action).strip() for action in episode.actions]
        assert [text[a:b] for a, b in spans] == wanted


def test_cells_of_a_grid_are_written_as_coordinates():
    episode = Episode((34, 34, 7), (0, 2), (1.0, 0.0))
    compact = schema_for("compact", 10)
    assert compact.render(episode) == "34a.34c07"
    assert schema_for("compact", 12).render(episode) == "0210a.0210c0007"
    assert schema_for("paper", 10).render(episode) == (
        "<O_1> 3 4, <A_1> 0, <R_1> 1.00, "
        "<O_2> 3 4, <A_2> 2, <R_2> 0.00, <O_3> 0 7, <A_3>"
    )
    for wrong in ("3a", "34a..", "34a,34a"):
        with pytest.raises(ValueError, match="two coordinates of 1 digits"):
            compact.parse(wrong)
    for text, name in (("0012b", "compact"), ("<O_1> 3 12, <A_1>", "paper")):
        with pytest.raises(ValueError, match="there is no cell"):
            schema_for(name, 12 if name == "compact" else 10).parse(text)
    with pytest.raises(ValueError, match=r"the reward of stage 0 is 0\.5"):
        compact.render(Episode((1,), (0,), (0.5,)))
    with pytest.raises(ValueError, match="the episode has none"):
        compact.render(Episode((1,), (0,)))


@given(episodes(actions=26, rewards=st.floats(-99, 99)))
def test_rendering_what_was_parsed_changes_nothing(episode):
    for schema in (PAPER, COMPACT):
        text = schema.render(episode)
        parsed = schema.parse(text)
        if schema is PAPER:
            wanted = [round(r, 2) for r in episode.rewards]
            assert list(parsed.rewards) == pytest.approx(wanted, abs=1e-12)
            assert schema.render(parsed) == text


@given(episodes(actions=26, rewards=cents).filter(lambda e: e.is_open))
def test_an_open_episode_and_an_answer_are_the_beginning_of_the_closed_one(episode):
    closed = Episode(
        episode.observations, (*episode.actions, 7), (*episode.rewards, 1.0)
    )
    for schema in (PAPER, COMPACT):
        begun = schema.render(episode) + schema.answer(7) + schema.terminator
        assert schema.render(closed).startswith(begun)


def test_the_wordings():
    episode = Episode((3, 4, 5), (0, 2), (-0.05, 4 / 9))
    assert PAPER.render(episode) == (
        "<O_1> 3, <A_1> 0, <R_1> -0.05, <O_2> 4, <A_2> 2, <R_2> 0.44, <O_3> 5, <A_3>"
    )
    assert COMPACT.render(episode) == "3a4c5"
    assert render_prompt(COMPACT, [Episode((1,), (1,))], episode) == "1b\n3a4c5"


def test_nothing_is_negative_zero():
    assert (
        PAPER.render(Episode((1,), (0,), (-0.001,))) == "<O_1> 1, <A_1> 0, <R_1> 0.00"
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_action_spans_are_the_answers(name):
    schema = SCHEMAS[name]
    episode = Episode((13, 4, 5), (0, 2, 1), (-0.05, 0.44, 0.5))
    text = render_prompt(schema, [episode], episode)
    found = [text[a:b] for a, b in schema.action_spans(text)]
    assert found == [schema.answer(a).strip() for a in (0, 2, 1, 0, 2, 1)]


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


@pytest.mark.parametrize("text", ["a3", "3ab", "3A", "3 a", "<O_1> 3", "3a\n4b"])
def test_the_compact_parser_refuses_what_does_not_alternate(text):
    with pytest.raises(ValueError, match="alternate"):
        COMPACT.parse(text)


def test_episodes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="1 observations and 2 actions"):
        Episode((1,), (1, 2))
    with pytest.raises(ValueError, match="0 rewards for 1 actions"):
        Episode((1,), (1,), ())
    with pytest.raises(ValueError, match="counted from 0"):
        Episode((-1,), ())
    with pytest.raises(ValueError, match="writes rewards"):
        PAPER.render(Episode((1,), (1,)))
    with pytest.raises(ValueError, match="action 26 has no letter"):
        COMPACT.answer(26)
