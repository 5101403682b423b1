"""Rounds of the point-based solver: what is compiled, and when."""

import jax
import numpy as np
import pytest
from random_models import random_apomdp

from sdm.solvers_jax import refinement
from sdm.solvers_jax.belief_model import belief_model, standardise


class Watched:
    """`_round`, with notes of the compilations ahead, of the calls and in the calls."""

    def __init__(self):
        self.round, self.notes, self.calling = refinement._round, [], False

    def hear(self, event, duration_secs, **kwargs):
        """Note that XLA compiles within a call; JAX tells it."""
        if self.calling and event == "/jax/core/compile/backend_compile_duration":
            self.notes.append("compile in a call")

    def lower(self, *arrays, **sizes):
        """Trace a round; its compilation leaves a note."""
        lowered, outer = self.round.lower(*arrays, **sizes), self

        class Lowered:
            def compile(self):
                outer.notes.append("compile")
                return lowered.compile()

        return Lowered()

    def __call__(self, *arrays, **sizes):
        """Call a round, with a note."""
        self.notes.append("call")
        self.calling = True
        found = self.round(*arrays, **sizes)
        self.calling = False
        return found


@pytest.mark.slow
def test_rounds_that_are_all_needed_are_compiled_first_and_once(monkeypatch):
    model = random_apomdp(3, 0.5, models=2, states=3, actions=2, symbols=2, batch=(3,))
    task, _ = standardise(belief_model(model), 2)
    options = {"horizon": 2, "points": (1, 2, 4), "convex": False}
    watched = Watched()
    monkeypatch.setattr(refinement, "_round", watched)
    jax.monitoring.register_event_duration_secs_listener(watched.hear)
    try:
        found = refinement.refine(task, **options)
        calls = len(watched.notes) - 3
        assert watched.notes == ["compile"] * 3 + ["call"] * calls and calls >= 3

        watched.notes.clear()
        asked = refinement.refine(
            task, **options, enough=lambda tasks, low, high: np.zeros(len(tasks), bool)
        )
        assert watched.notes == ["call"] * calls  # nothing ahead where rounds may end
    finally:
        jax.monitoring.unregister_event_duration_listener(watched.hear)
    np.testing.assert_array_equal(asked.lower, found.lower)
    assert asked.tried == found.tried == (3, 4, 6)
