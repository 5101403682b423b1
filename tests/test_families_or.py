"""Families of operations research: garnet, maintenance and inventory."""

import itertools
import math

import expectimax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import tasks_of
from tolerances import ROUNDING, SINGLE

from sdm.solvers_jax import check_model, solve
from sdm.tasks import load_family
from sdm.tasks.ambiguity import set_divergence
from sdm.tasks.conjugate_family import ConjugateFamily
from sdm.tasks.families.garnet import COMMON, GarnetFamily
from sdm.tasks.families.inventory import InventoryFamily
from sdm.tasks.families.maintenance import MaintenanceFamily
from sdm.tasks.family import SET_KEY

NAMES = ("garnet", "inventory", "maintenance")


def arrays(**values):
    return {name: jnp.asarray(value, float) for name, value in values.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tasks_depend_on_their_index_and_differ(name):
    family, key = load_family(name), jax.random.key(3)
    whole = family.parameters(key, 10, split="train")
    part = family.parameters(key, 3, split="train", first=jnp.int32(4))
    assert whole.keys() == part.keys()
    for each in whole:
        np.testing.assert_array_equal(whole[each][4:7], part[each])
        assert len(np.unique(whole[each])) == 10
    moves = np.asarray(family.model(whole, "mdp").transition)
    assert all((a != b).any() for a, b in itertools.pairwise(moves))


@pytest.mark.parametrize("name", NAMES)
def test_models_are_well_posed_and_fit_their_spaces(name):
    family = load_family(name)
    params = family.parameters(jax.random.key(0), 4, split="test")
    for kind in ("mdp", "pomdp"):
        model = family.model(params, kind)
        check_model(model)
        spaces = family.spaces
        assert model.reward.shape == (4, spaces.states, len(spaces.actions))
        if kind != "mdp":
            assert model.observation.shape[-1] == spaces.symbols(kind)
    params, weight = family.prior()
    assert weight.sum() == pytest.approx(1)
    check_model(family.model(params, "mdp"))
    alone = {each: value[0] for each, value in params.items()}  # no batch axis
    first = family.model(alone, "mdp").transition
    every = family.model(params, "mdp").transition
    np.testing.assert_allclose(first, every[0], atol=ROUNDING)


@pytest.mark.parametrize("name", ["inventory", "maintenance"])
def test_parameters_and_candidates_fill_their_ranges(name):
    family = load_family(name)
    drawn = family.parameters(jax.random.key(0), 1000, split="train")
    candidates, _ = family.prior()
    assert set(drawn) == set(family.drawn) == set(candidates)
    for each, (low, high) in family.ranges.items():
        width = high - low
        assert low <= drawn[each].min() < low + 0.01 * width
        assert high - 0.01 * width < drawn[each].max() <= high
        values = np.unique(candidates[each])
        cells = family.cells[family.drawn.index(each)]
        wanted = low + width * (np.arange(cells) + 0.5) / cells
        np.testing.assert_allclose(values, wanted, rtol=ROUNDING)
        assert candidates[each].mean() == pytest.approx((low + high) / 2)
    assert abs(np.corrcoef([np.asarray(x) for x in drawn.values()])[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("garnet", {"branching": 6}, "branching = 6"),
        ("garnet", {"shown": 0}, "shown = 0"),
        ("garnet", {"sparsity": 1.5}, "sparsity = 1.5: must lie between 0 and 1"),
        ("inventory", {"mean_min": -1.0}, "mean_min = -1: must be 0 or more, and fin"),
        ("inventory", {"mean_min": 9.0}, "mean_min = 9 is larger than mean_max = 4"),
        ("inventory", {"persistence_max": 2.0}, "persistence_max = 2: must lie betw"),
        ("inventory", {"capacity": 0}, "capacity = 0"),
        ("inventory", {"fixed": math.inf}, "fixed = inf: must be 0 or more"),
        ("inventory", {"dispersion_min": -0.1}, "dispersion_min = -0.1"),
        ("inventory", {"holding": -1.0}, "holding = -1: must be 0 or more"),
        ("inventory", {"penalty": -1.0}, "penalty = -1: must be 0 or more"),
        ("inventory", {"swing": 1.5}, "swing = 1.5: must lie between 0 and 1"),
        ("inventory", {"discount": 1.5}, "discount = 1.5: must lie between 0 and 1"),
        ("inventory", {"max_order": 0}, "max_order = 0"),
        ("inventory", {"max_demand": 0}, "max_demand = 0"),
        ("maintenance", {"wear_max": 1.2}, "wear_max = 1.2: must lie between 0 and 1"),
        ("maintenance", {"conditions": 2}, "conditions = 2"),
        ("maintenance", {"repair_cost": -0.1}, "repair_cost = -0.1"),
        ("maintenance", {"inspection_cost": -0.1}, "inspection_cost = -0.1"),
        ("maintenance", {"replacement_cost": math.inf}, "replacement_cost = inf"),
        ("maintenance", {"accuracy": 1.2}, "accuracy = 1.2: must lie between 0 and 1"),
        ("maintenance", {"discount": 1.5}, "discount = 1.5: must lie between 0 and 1"),
        ("maintenance", {"alpha": 2.0}, "alpha = 2"),
        ("maintenance", {"models": 0}, "K = 0"),
        ("maintenance", {"radius": 0.0}, "radius = 0: must be positive"),
        ("maintenance", {"concentration": -1.0}, "concentration = -1: must be posit"),
    ],
)
def test_families_that_make_no_task_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        load_family(name, options)


# Garnet.


def rows_by_hand(uniform, width):
    """One distribution from uniform numbers, as the family's description says."""
    rank, cuts = list(uniform[:width]), sorted(map(float, uniform[width:]))
    row, ends = np.zeros(width), [0.0, *cuts, 1.0]
    for piece in range(len(cuts) + 1):
        successor = sorted(range(width), key=rank.__getitem__)[piece]
        row[successor] = ends[piece + 1] - ends[piece]
    return row


def test_garnet_tables_are_those_of_their_random_numbers():
    family = GarnetFamily(states=4, actions=2, branching=3, symbols=3, levels=3)
    seed = jnp.asarray([7], jnp.uint32)
    model = family.model({"table": seed}, "pomdp")
    drawn = jax.random.uniform(jax.random.key(7), 4 * 2 * 9 + 4 * 5, jnp.float32)
    u = np.asarray(drawn[: 4 * 2 * 9], float).reshape(4, 2, 9)
    v = np.asarray(drawn[4 * 2 * 9 :], float).reshape(4, 5)
    for s in range(4):
        shown = rows_by_hand(v[s, :4], 3)
        np.testing.assert_allclose(model.initial_observation[0, s], shown)
        for a in range(2):
            wanted = rows_by_hand(u[s, a, :6], 4)
            np.testing.assert_allclose(model.transition[0, s, a], wanted)
            np.testing.assert_allclose(model.observation[0, a, s], shown)
            level = 0 if u[s, a, 6] < 0.5 else 1 + int(float(u[s, a, 7]) * 3)
            assert model.reward[0, s, a] == level / 3


def test_garnets_are_as_random_as_described():
    family = GarnetFamily(states=6, branching=3, sparsity=0.3, levels=4)
    tasks = family.parameters(jax.random.key(0), 400, split="train")
    model = family.model(tasks, "mdp")
    p, r = np.asarray(model.transition), np.asarray(model.reward)
    assert ((p > 0).sum(-1) == 3).all()
    # 43,200 entries; the pieces of a stick broken in three: E p = 1/3, E p² = 1/6.
    # Standard errors are 0.001 to 0.003.
    np.testing.assert_allclose((p > 0).mean((0, 1, 2)), 1 / 2, atol=0.02)
    np.testing.assert_allclose(p[p > 0].mean(), 1 / 3, atol=1e-9)
    np.testing.assert_allclose((p[p > 0] ** 2).mean(), 1 / 6, atol=0.005)
    levels, counts = np.unique(r, return_counts=True)
    np.testing.assert_array_equal(levels, family.spaces.rewards)
    shares = np.array([0.3, *[0.7 / 4] * 4])
    np.testing.assert_allclose(counts / r.size, shares, atol=0.02)


def test_garnets_to_train_on_and_to_test_with_are_different_ones():
    family = GarnetFamily()
    train, test = (
        family.parameters(jax.random.key(0), 50, split=split)["table"]
        for split in ("train", "test")
    )
    assert (train % 2 == 0).all() and (test % 2 == 1).all()


def test_rows_of_garnets_are_common_to_all_tasks_as_often_as_asked():
    own, mixed, common = (
        GarnetFamily(shared=shared).model(
            {"table": jnp.arange(1, 201, dtype=jnp.uint32)}, "pomdp"
        )
        for shared in (0.0, 0.7, 1.0)
    )
    table = GarnetFamily().model({"table": jnp.asarray([COMMON], jnp.uint32)}, "pomdp")
    for name in ("transition", "reward", "initial_observation"):
        a, m, c, t = (np.asarray(getattr(x, name)) for x in (own, mixed, common, table))
        assert (c == t).all()
        assert ((m == t) | (m == a)).all()
    rows = np.asarray(mixed.transition == table.transition).all(-1)
    assert rows.mean() == pytest.approx(0.7, abs=0.03)  # three standard errors of 3,000
    # A row and its reward are common together.
    paid = np.asarray(mixed.reward == table.reward)
    assert paid[rows].all() and not paid[~rows].all()


def test_garnets_are_the_same_in_single_precision():
    family, seeds = GarnetFamily(), np.arange(50, dtype=np.uint32)
    double = family.model({"table": jnp.asarray(seeds)}, "pomdp")
    with jax.enable_x64(False):
        single = family.model({"table": jnp.asarray(seeds)}, "pomdp")
    assert single.transition.dtype == jnp.float32
    for name in ("transition", "reward", "observation"):
        x, y = (np.asarray(getattr(m, name), float) for m in (single, double))
        np.testing.assert_allclose(x, y, atol=SINGLE)


# Maintenance.

RUN, INSPECT, REPAIR, REPLACE = range(4)


def test_maintenance_tables_are_the_rules():
    family = MaintenanceFamily(conditions=4, accuracy=0.6)
    params = arrays(wear=[0.3, 0.5], breakdown=[0.1, 0.2], repair=[0.4, 0.8])
    model = family.model(params, "pomdp")
    failed = 3
    for task in range(2):
        w, b, q = (float(x[task]) for x in params.values())
        for c in range(4):
            for a in range(4):
                row = [0.0] * 4
                if a in (RUN, INSPECT):
                    pay = 1 - c / failed - (0.05 if a == INSPECT else 0)
                    if c == failed:
                        row[failed] = 1
                    else:
                        row[failed] += b
                        row[c + 1 if c < failed - 1 else c] += (1 - b) * w
                        row[c] += (1 - b) * (1 - w)
                elif a == REPAIR:
                    pay = -0.3
                    row[0] += q
                    row[c] += 1 - q
                else:
                    pay = -1.2
                    row[0] = 1
                np.testing.assert_allclose(model.transition[task, c, a], row)
                assert model.reward[task, c, a] == pytest.approx(pay)
                for o in range(4):
                    shown = float(o == c)
                    if a in (RUN, REPAIR) and c != failed:
                        shown = 0.6 if o == c else 0.2 if o != failed else 0.0
                    assert model.observation[task, a, c, o] == pytest.approx(shown)
    np.testing.assert_array_equal(model.initial_observation, model.observation[:, RUN])
    np.testing.assert_allclose(model.initial, 0.25)


@pytest.mark.slow
def test_maintenance_where_the_answer_is_known():
    certain = MaintenanceFamily(conditions=4, accuracy=1.0)
    params = certain.parameters(jax.random.key(0), 2, split="test")
    seen = solve(certain.model(params, "mdp"), horizon=6)
    hidden = solve(certain.model(params, "pomdp"), horizon=6, method="exact")
    np.testing.assert_allclose(hidden.value, seen.value, rtol=ROUNDING)
    assert (np.asarray(seen.policy) != INSPECT).all()
    # A machine that neither wears nor fails runs for ever.
    ideal = arrays(wear=[0.0], breakdown=[0.0], repair=[1.0])
    q = solve(certain.model(ideal, "mdp"), horizon=6).q[0, 0, 0]
    assert q[RUN] == pytest.approx(sum(0.95**t for t in range(6)))
    # One decision is left: a repair pays later only.
    assert (np.asarray(seen.policy)[:, -1] == RUN).all()


@pytest.mark.slow
def test_hidden_maintenance_is_worth_what_a_search_over_histories_finds():
    family = MaintenanceFamily(conditions=3)
    params = family.parameters(jax.random.key(0), 1, split="test")
    (nominal,) = tasks_of(family.model(params, "pomdp"))
    models = [(np.asarray(nominal.transition), np.asarray(nominal.observation))]
    firsts = [np.asarray(nominal.initial_observation)]
    rest = (np.asarray(nominal.reward), np.asarray(nominal.initial))
    value = expectimax.initial_value(models, firsts, *rest, 1.0, 0.95, 3)
    found = solve(nominal, horizon=3, method="exact")
    assert float(found.value) == pytest.approx(value, rel=ROUNDING)


@pytest.mark.slow
def test_ambiguous_maintenance_surrounds_the_nominal_model():
    family = MaintenanceFamily(models=3)
    params = dict(family.parameters(jax.random.key(0), 2, split="test"))
    params[SET_KEY] = jax.random.split(jax.random.key(1), 2)
    nominal, sets = family.model(params, "pomdp"), family.model(params, "apomdp")
    check_model(sets)
    far = family.divergence(params, sets)
    np.testing.assert_array_equal(far, set_divergence(sets))
    assert (far[:, 0] == 0).all() and (far[:, 1:] > 0).all()
    for name in ("transition", "observation", "initial_observation"):
        first, every = getattr(nominal, name), getattr(sets, name)
        np.testing.assert_array_equal(every[:, 0], first)
        possible = np.asarray(first)[:, None] > 0
        assert (np.asarray(every)[~np.broadcast_to(possible, every.shape)] == 0).all()
    assert sets.alpha == family.alpha


def test_counts_of_maintenance_are_all_that_moves_tell():
    """Posterior means by counts agree with Bayes' rule on a fine grid of parameters."""
    family = MaintenanceFamily(conditions=4)
    assert isinstance(family, ConjugateFamily)
    moves = [(0, RUN, 0), (0, INSPECT, 1), (1, RUN, 2), (2, RUN, 2), (2, INSPECT, 3)]
    moves += [(3, REPAIR, 3), (3, REPAIR, 3), (3, REPAIR, 0), (0, RUN, 1)]
    moves += [(1, REPLACE, 0), (0, REPAIR, 0), (3, RUN, 3)]  # these tell nothing
    state, action, after = map(np.asarray, zip(*moves, strict=True))
    counts = family.tally(state, action, after)
    assert (counts.sum(-1) <= 1).all() and counts.shape[-1] == family.counts
    mean = {k: v[0] for k, v in family.posterior_mean(counts.sum(0)[None]).items()}
    axes = [low + (high - low) * (np.arange(60) + 0.5) / 60
            for low, high in family.ranges.values()]  # fmt: skip
    grid = np.meshgrid(*axes, indexing="ij")
    params = arrays(**dict(zip(family.drawn, (x.ravel() for x in grid), strict=True)))
    likelihood = np.ones(grid[0].size)
    table = np.asarray(family.model(params, "mdp").transition)
    for s, a, n in moves:
        likelihood *= table[:, s, a, n]
    for name, value in params.items():
        # The midpoint rule on 60 cells errs by about 1e-4 of the range.
        wanted = (likelihood * np.asarray(value)).sum() / likelihood.sum()
        assert float(mean[name]) == pytest.approx(wanted, abs=1e-3)
    # The mean of the models is the model of the means.
    mixed = np.einsum("g,gsan->san", likelihood / likelihood.sum(), table)
    by_counts = family.model(mean, "mdp").transition
    np.testing.assert_allclose(by_counts, mixed, atol=1e-3)
    # What a move cannot do is not counted.
    nothing = family.tally(*map(np.asarray, ([2, 0, 3], [RUN] * 3, [0, 2, 0])))
    assert not nothing.any()


# Inventory.


def demand_by_hand(mean, k, most):
    """Probabilities of demands 0, ..., most, by the textbook formula."""
    if k == 0:
        raw = [math.exp(-mean) * mean**d / math.factorial(d) for d in range(most + 1)]
    else:
        r = 1 / k
        raw = [
            math.gamma(r + d) / (math.factorial(d) * math.gamma(r))
            * (r / (r + mean)) ** r * (mean / (r + mean)) ** d
            for d in range(most + 1)
        ]  # fmt: skip
    return [x / sum(raw) for x in raw]


SMALL = InventoryFamily(capacity=2, max_order=3, max_demand=4)
DEMANDS = arrays(mean=[1.5, 2.0], dispersion=[0.0, 0.4], persistence=[0.7, 0.9])


def markets(task):
    """The demand in both markets, and the probability of staying in one."""
    mean, k, stays = (float(x[task]) for x in DEMANDS.values())
    return [demand_by_hand(share * mean, k, 4) for share in (0.5, 1.5)], stays


def step(stock, order, demand):
    """What a stage pays and leaves, by the rules."""
    filled = min(stock + order, 2)
    left, lost = max(filled - demand, 0), max(demand - filled, 0)
    paid = min(filled, demand) - 0.2 * left - 0.5 * lost - 0.5 * (filled > stock)
    return paid, left


@pytest.mark.parametrize("task", [0, 1])
def test_inventory_tables_are_the_rules(task):
    model = SMALL.model(DEMANDS, "pomdp")
    demand, stays = markets(task)
    np.testing.assert_allclose(SMALL.demand(DEMANDS)[task], demand, rtol=ROUNDING)
    for market in range(2):
        for stock in range(3):
            for order in range(4):
                expected, row = 0.0, np.zeros(6)
                for d, chance in enumerate(demand[market]):
                    paid, left = step(stock, order, d)
                    expected += chance * paid
                    for later in range(2):
                        moved = stays if later == market else 1 - stays
                        row[3 * later + left] += chance * moved
                s = 3 * market + stock
                np.testing.assert_allclose(model.transition[task, s, order], row)
                assert model.reward[task, s, order] == pytest.approx(expected)
                shown = np.eye(3)[stock]
                np.testing.assert_array_equal(model.observation[task, order, s], shown)
                np.testing.assert_array_equal(model.initial_observation[task, s], shown)
    np.testing.assert_allclose(model.initial, 1 / 6)


def best_seen(demand, stays, market, stock, horizon):
    """Value of a seen market and stock, from the rules and realised rewards."""
    if horizon == 0:
        return 0.0
    values = []
    for order in range(4):
        total = 0.0
        for d, chance in enumerate(demand[market]):
            paid, left = step(stock, order, d)
            for later in range(2):
                moved = stays if later == market else 1 - stays
                rest = best_seen(demand, stays, later, left, horizon - 1)
                total += chance * moved * (paid + 0.95 * rest)
        values.append(total)
    return max(values)


def best_hidden(demand, stays, belief, stock, horizon):
    """The same where sales alone tell of the market."""
    if horizon == 0:
        return 0.0
    values = []
    for order in range(4):
        total, reached = 0.0, {}
        for market in range(2):
            for d, chance in enumerate(demand[market]):
                paid, left = step(stock, order, d)
                total += belief[market] * chance * paid
                joint = reached.setdefault(left, [0.0, 0.0])
                joint[market] += belief[market] * chance * stays
                joint[1 - market] += belief[market] * chance * (1 - stays)
        for left, joint in reached.items():
            after = [x / sum(joint) for x in joint]
            rest = best_hidden(demand, stays, after, left, horizon - 1)
            total += 0.95 * sum(joint) * rest
        values.append(total)
    return max(values)


@pytest.mark.slow
def test_inventory_is_worth_what_a_search_over_the_rules_finds():
    seen = solve(SMALL.model(DEMANDS, "mdp"), horizon=3)
    hidden = solve(SMALL.model(DEMANDS, "pomdp"), horizon=3, method="exact")
    for task in range(2):
        demand, stays = markets(task)
        value = np.mean(
            [best_seen(demand, stays, m, s, 3) for m in range(2) for s in range(3)]
        )
        assert seen.value[task] == pytest.approx(value, rel=ROUNDING)
        value = np.mean(
            [best_hidden(demand, stays, [0.5, 0.5], s, 3) for s in range(3)]
        )
        assert hidden.value[task] == pytest.approx(value, rel=ROUNDING)
        assert value < seen.value[task]  # a market that is seen is worth something


@pytest.mark.slow
def test_inventory_where_the_answer_is_known():
    # One stage, no fixed cost: order up to the critical fractile (newsvendor).
    family = InventoryFamily(fixed=0.0, penalty=0.3, holding=0.6)
    params = family.parameters(jax.random.key(0), 5, split="test")
    policy = np.asarray(solve(family.model(params, "mdp"), horizon=1).policy)[:, 0]
    total = np.cumsum(family.demand(params), axis=-1)
    for task, market in np.ndindex(5, 2):
        level = int(np.argmax(total[task, market] >= 1.3 / 1.9))
        for stock in range(8):
            wanted = max(0, min(level, 7) - stock)
            assert policy[task, 8 * market + stock] == wanted
    # Markets that do not differ need not be seen.
    family = InventoryFamily(swing=0.0, capacity=2, max_order=2)
    params = family.parameters(jax.random.key(0), 2, split="test")
    seen = solve(family.model(params, "mdp"), horizon=4).value
    hidden = solve(family.model(params, "pomdp"), horizon=4, method="exact").value
    np.testing.assert_allclose(hidden, seen, rtol=ROUNDING)
