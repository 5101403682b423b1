"""What can be earned in `sepsis` if neither diabetes nor glucose is seen.

The documentation of plans quotes these numbers: with the true model, the best policy
that was found without memory, and the limit of infinitely many logs.
"""

import numpy as np
import pytest

from sdm.tasks.families.sepsis import SepsisFamily
from sdm.tasks.sepsis_dynamics import STATE

HORIZON, ACTIONS = 20, 8
HIDDEN = ("diabetes", "glucose")


class World:
    """The published model in NumPy, with the symbol that each state shows."""

    def __init__(self):
        family = SepsisFamily()
        model = family.published()
        self.next = np.asarray(model.transition.successors)
        self.chance = np.asarray(model.transition.probabilities, float)
        self.reward = np.asarray(model.reward, float)
        self.initial = np.asarray(model.initial, float)
        self.physician = family.expert()
        states = len(self.initial)
        stays = (self.chance * (self.next == np.arange(states)[:, None, None])).sum(-1)
        self.ended = (stays > 1 - 1e-12).all(-1) & (self.reward == 0).all(-1)
        sizes = [part.size for part in STATE]
        values = np.unravel_index(np.arange(states), sizes)
        shown = [i for i, part in enumerate(STATE) if part.name not in HIDDEN]
        self.symbol = np.ravel_multi_index(
            [values[i] for i in shown], [sizes[i] for i in shown]
        )
        self.symbols = int(self.symbol.max()) + 1

    def q(self, value):
        """The values of actions before a stage of these values."""
        return self.reward + (self.chance * value[self.next]).sum(-1)

    def value(self, policy):
        """The value of π_t(a | s)."""
        value = np.zeros(len(self.initial))
        for table in reversed(policy):
            value = (table * self.q(value)).sum(-1)
        return self.initial @ value

    def occupancy(self, policy):
        """The probability of each stage's states, of episodes that have not ended."""
        here, found = self.initial, []
        for table in policy:
            found.append(here * ~self.ended)
            after = np.zeros(len(here))
            np.add.at(
                after, self.next, (here[:, None] * table)[..., None] * self.chance
            )
            here = after
        return np.array(found)

    def by_symbol(self, weights):
        """The sums of weights [S, A] over the states with each symbol."""
        sums = np.zeros((self.symbols, *weights.shape[1:]))
        np.add.at(sums, self.symbol, weights)
        return sums

    def on_symbols(self, action):
        """The policy that takes action[t, symbol]."""
        return np.eye(ACTIONS)[action][:, self.symbol]


@pytest.fixture(scope="module")
def world():
    return World()


def always(world, table):
    return np.broadcast_to(table, (HORIZON, *table.shape))


def plan_of_infinitely_many_logs(world, share):
    """Plan for the frequencies, among actions of at least a share; as `support`."""
    logged = world.occupancy(always(world, world.physician)).sum(0)
    weight = logged[:, None] * world.physician
    count, paid = world.by_symbol(weight), world.by_symbol(weight * world.reward)
    moves = np.zeros((world.symbols, ACTIONS, world.symbols))
    place = (world.symbol[:, None, None], np.arange(ACTIONS)[:, None])
    np.add.at(
        moves, (*place, world.symbol[world.next]), weight[..., None] * world.chance
    )
    some = np.where(count > 0, count, 1)
    enough = count >= share * count.sum(-1, keepdims=True)
    value, chosen = np.zeros(world.symbols), []
    for _ in range(HORIZON):
        q = np.where(enough, (paid + moves @ value) / some, -np.inf)
        chosen.append(q.argmax(-1))
        value = q.max(-1)
    return np.array(chosen[::-1])


def improved(world, action):
    """Change actions of symbols, stage by stage, as long as the value grows."""
    while True:
        before = world.value(world.on_symbols(action))
        here = world.occupancy(world.on_symbols(action))
        value, action = np.zeros(len(world.initial)), action.copy()
        for t in reversed(range(HORIZON)):
            q = world.q(value)
            worth = world.by_symbol(here[t][:, None] * q)
            own = np.take_along_axis(worth, action[t][:, None], 1)[:, 0]
            better = worth.max(-1) > own + 1e-12
            action[t] = np.where(better, worth.argmax(-1), action[t])
            value = (world.on_symbols(action[t : t + 1])[0] * q).sum(-1)
        if world.value(world.on_symbols(action)) < before + 1e-9:
            return action


@pytest.mark.slow
def test_no_policy_found_without_memory_is_worth_the_physician(world):
    seen_all = always(world, world.physician)
    assert world.value(seen_all) == pytest.approx(0.317473, abs=1e-6)
    logged = world.occupancy(seen_all).sum(0)[:, None] * world.physician
    count = world.by_symbol(logged)
    copied = count / np.maximum(count.sum(-1, keepdims=True), 1e-300)
    # The quoted numbers have two or three digits.
    worth = world.value(always(world, copied[world.symbol]))
    assert worth == pytest.approx(-0.009, abs=5e-4)
    limit = plan_of_infinitely_many_logs(world, 0.2)
    assert world.value(world.on_symbols(limit)) == pytest.approx(0.216, abs=5e-4)
    usual = np.broadcast_to(count.argmax(-1), (HORIZON, world.symbols))
    best = [world.on_symbols(improved(world, x)) for x in (limit, usual)]
    assert max(map(world.value, best)) == pytest.approx(0.284, abs=5e-4)
