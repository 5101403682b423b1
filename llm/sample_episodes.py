"""Sample episodes of a schema: one with every character, one with the longest text."""

from collections.abc import Sequence

from sdm.llm.episode import Episode
from sdm.llm.schema import Schema

DIGITS = 10


def sample_episode(schema: Schema) -> Episode:
    """Return a complete episode that uses every character a schema can write."""
    contents = schema.contents
    components, seen = contents.seen, []
    for place, component in enumerate(components):
        for value in range(component.size if component.values else DIGITS):
            values = [0] * len(components)
            values[place] = min(value, component.size - 1)
            seen.append(contents.observation(tuple(values)))
    actions = range(len(contents.actions))
    # If the family lists no rewards, these have both signs and every digit.
    paid = contents.levels or [0.11 * i - 0.05 for i in range(DIGITS)]
    stages = range(max(len(seen), len(actions), len(paid), DIGITS))
    return Episode(
        tuple(seen[t % len(seen)] for t in stages),
        tuple(actions[t % len(actions)] for t in stages),
        tuple(paid[t % len(paid)] for t in stages),
    )


def longest_episode(schema: Schema, horizon: int, rewards: Sequence[float]) -> Episode:
    """Return a complete episode of about the longest possible text.

    Args:
        schema: text schema of the episode.
        horizon: decisions in the episode.
        rewards: possible rewards of a decision, used if the family lists none.

    """
    contents = schema.contents
    values = [
        max(range(c.size), key=lambda v: len(c.values[v])) if c.values else c.size - 1
        for c in contents.seen
    ]
    actions = range(len(contents.actions))
    action = max(actions, key=lambda a: len(schema.answer(a)))
    seen = contents.observation(tuple(values))

    def length(reward: float) -> int:
        return len(schema.render(Episode((seen,), (action,), (reward,))))

    paid = max(contents.levels or rewards, key=length)
    return Episode((seen,) * horizon, (action,) * horizon, (paid,) * horizon)
