"""Exact α-vectors: against the belief tree, other solvers, and dense beliefs."""

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_pomdp, tasks_of, tiger
from tolerances import ROUNDING

from sdm.solvers_jax import solve
from sdm.solvers_jax.belief_tree import belief_tree_value, value_at
from sdm.solvers_jax.incremental_pruning import PruningError, exact_vectors, prune


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_values_are_those_of_the_belief_tree(first):
    model = random_pomdp(3, actions=3, batch=(3,), first=first)
    found = solve(model, horizon=3, method="exact")
    for i in range(3):
        one = tasks_of(model)[i]
        exact = belief_tree_value(one, horizon=3)
        assert found.lower[i] <= exact <= found.upper[i]
    # Pruning may cost 1e-9 of the rewards' range each time, five times a stage.
    span = np.ptp(np.asarray(model.reward), axis=(1, 2))
    assert ((found.upper - found.lower) <= 2e-8 * span).all()
    assert found.converged.all()


def test_the_tiger_needs_as_many_vectors_as_are_known():
    # pomdp-solve, horizons 1 to 6, discount 0.95.
    model = tiger()
    arrays = tuple(
        np.asarray(x) for x in (model.transition, model.observation, model.reward)
    )
    stages = exact_vectors(lambda t: arrays, 0.95, horizon=6)
    assert [len(s.vector) for s in stages[::-1]] == [3, 5, 9, 7, 13, 15]
    assert stages[0].vector.max() <= 6 * 10 and set(stages[-1].action) == {0, 1, 2}


@pytest.mark.slow
def test_values_and_actions_are_right_at_every_belief():
    model = random_pomdp(4, actions=3)
    found = solve(model, horizon=3, method="exact")
    belief = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    value = value_at(model, belief, horizon=3)
    taken = np.asarray(found.action(0, jnp.asarray(belief)))
    loss = value.max(-1) - value[np.arange(50), taken]
    assert loss.max() <= 1e-8  # what pruning may lose
    # Acting compares actions in double precision; single precision errs by 1e-7.
    ahead = np.asarray(found.action_value(0, jnp.asarray(belief)))
    np.testing.assert_allclose(ahead, value, rtol=0, atol=1e-8)


def test_pruning_keeps_what_is_best_somewhere_and_nothing_else():
    random = np.random.default_rng(1)
    vectors = random.normal(size=(40, 3))
    kept = prune(np.concatenate([vectors, vectors, vectors - 0.1]))
    belief = random.dirichlet(np.ones(3), 20_000)
    best = (belief @ vectors.T).max(1)
    np.testing.assert_allclose((belief @ kept.T).max(1), best, rtol=0, atol=ROUNDING)
    seen = {tuple(vectors[i]) for i in (belief @ vectors.T).argmax(1)}
    assert seen <= {tuple(row) for row in kept} <= {tuple(row) for row in vectors}


def test_one_decision_and_no_more_stages():
    found = solve(random_pomdp(0), horizon=1, method="exact")
    assert found.choice.size == 0
    wanted = belief_tree_value(random_pomdp(0), horizon=1)
    assert found.lower <= wanted <= found.upper


def test_too_many_vectors_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr("sdm.solvers_jax.incremental_pruning.MAX_VECTORS", 2)
    with pytest.raises(PruningError, match="must compare at most") as error:
        solve(random_pomdp(0, symbols=3, actions=3), horizon=5, method="exact")
    assert "shorter horizon" in error.value.hint
