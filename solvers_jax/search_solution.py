"""Solution of a depth-first search: the α-vectors that its policy needs."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sdm.solvers_jax.belief_model import Units, impossible, inadmissible
from sdm.solvers_jax.belief_solution import shaped
from sdm.solvers_jax.certificate import Certified
from sdm.solvers_jax.search_tree import Tree
from sdm.tasks.host_checks import beliefs_over, check_stage


class SearchSolution(eqx.Module):
    """α-vectors of every stage, and the policy that follows the best of them.

    The vectors use standardised rewards (see `units`); `alpha_vectors` uses the
    original ones. Stages have equal numbers of vectors: some are repeated.

    Attributes:
        vector: value of each plan in each state; U is T, or 1 without a horizon.
        choice: the first action of each plan.
        annuity: value of a reward of 1 in every remaining stage.
        units: scaling of the rewards.
        value: certified lower bound on the policy's expected discounted return from the
            initial distribution, and so on the optimal value.
        lower: the same as `value`.
        upper: certified upper bound on the optimal value.
        converged: whether `upper - lower`, with rounding, reached the requested gap.
        history: seconds since the start, and both bounds then, R times.
        horizon: number of decisions T; None if there is no horizon.

    """

    vector: Float[Array, "*B U N S"]
    choice: Int[Array, "*B U N"]
    annuity: Float[Array, " U"]
    units: Units
    value: Float[Array, "*B"]
    lower: Float[Array, "*B"]
    upper: Float[Array, "*B"]
    converged: Bool[Array, "*B"]
    history: Float[Array, "*B R 3"]
    horizon: int | None = eqx.field(static=True)

    def action(
        self, t: int | Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        """Return the actions at stage `t` for N beliefs `x` of every task.

        Without a horizon, they do not depend on the stage.

        Raises:
            ValueError: if `t` is not a stage or an entry of `x` no probability, unless
                JAX traces it, or the beliefs are not over S states.

        """
        if self.horizon is not None:
            check_stage(t, self.horizon)
        beliefs = beliefs_over(self.vector.shape[-1], x)
        now = jnp.asarray(t if self.horizon is not None else 0)
        return self._action(now, beliefs)

    @eqx.filter_jit
    def _action(
        self, t: Int[Array, ""], x: Float[Array, "*B N S"]
    ) -> Int[Array, "*B N"]:
        batch = x.ndim - 2
        vector = jnp.take(self.vector, t, axis=batch)
        choice = jnp.take(self.choice, t, axis=batch)
        score = jnp.einsum("...ns,...ps->...np", x.astype(vector.dtype), vector)
        return jnp.take_along_axis(choice, score.argmax(-1), axis=-1)

    @property
    def alpha_vectors(self) -> Float[Array, "*B U N S"]:
        """The α-vectors, in units of reward.

        An entry is -inf if the plan takes an action that is not admissible after
        starting in that state.
        """
        centre = self.units.centre[..., None] * self.annuity
        value = self.units.scale[..., None, None, None] * self.vector
        value = jnp.where(impossible(self.vector), -jnp.inf, value)
        return value + centre[..., None, None]


class Found(NamedTuple):
    """Result of the search in one task.

    Attributes:
        tree: beliefs and bounds of every stage.
        bounds: certified bounds on the value.
        converged: whether they are close enough.
        history: seconds and bounds during the search.

    """

    tree: Tree
    bounds: Certified
    converged: Bool[np.ndarray, " 1"]
    history: Float[np.ndarray, "R 3"]


class StagePlans(NamedTuple):
    """α-vectors of one stage and the first actions of their plans."""

    value: Float[np.ndarray, "N S"]
    action: Int[np.ndarray, " N"]


def search_solution(
    found: list[Found], batch: tuple[int, ...], horizon: int | None
) -> SearchSolution:
    """Return the solution of all tasks, with equal numbers of vectors."""
    plans = [needed_plans(each.tree) for each in found]
    most = max(len(stage.action) for task in plans for stage in task)

    def stacked(field: int) -> np.ndarray:
        rows = [
            [stage[field][_up_to(len(stage.action), most)] for stage in task]
            for task in plans
        ]
        return np.array(rows)

    def joined(values: list[np.ndarray]) -> Array:
        return shaped(np.concatenate(values), batch)

    models = [each.tree.model for each in found]
    lower = joined([each.bounds.lower for each in found])
    histories = [each.history for each in found]
    longest = max(map(len, histories))
    return SearchSolution(
        vector=shaped(_finite(stacked(0)), batch),
        choice=shaped(stacked(1), batch),
        annuity=jnp.asarray(_annuity(models[0].discount, horizon)),
        units=Units(
            joined([np.asarray(model.units.centre) for model in models]),
            joined([np.asarray(model.units.scale) for model in models]),
        ),
        value=lower,
        lower=lower,
        upper=joined([each.bounds.upper for each in found]),
        converged=joined([each.converged for each in found]),
        history=shaped(
            np.array(
                [each.history[_up_to(len(each.history), longest)] for each in found]
            ),
            batch,
        ),
        horizon=horizon,
    )


def _up_to(count: int, most: int) -> Int[np.ndarray, " N"]:
    """Return the indices 0, …, count - 1, and the last again up to `most` indices."""
    return np.minimum(np.arange(most), count - 1)


def _finite(vector: Float[np.ndarray, "B U N S"]) -> Float[np.ndarray, "B U N S"]:
    """Return vectors in JAX's precision, with its penalty for barred actions.

    That of double precision is infinite in single precision: times a probability of
    zero, it would not be a number.
    """
    kind = np.dtype(jnp.result_type(float))
    return np.where(impossible(vector), -inadmissible(kind), vector).astype(kind)


def _annuity(discount: float, horizon: int | None) -> Float[np.ndarray, " U"]:
    """Return the value of a reward of 1 in every remaining stage."""
    if horizon is None:
        return np.array([1 / (1 - discount)])
    return np.cumsum(discount ** np.arange(horizon))[::-1]


def needed_plans(tree: Tree) -> list[StagePlans]:
    """Return the α-vectors of each stage that some belief needs.

    These are the best at a belief that the search reached, and all that they continue
    with: every vector then has the vectors of the next stage that it was made of, so
    that a policy which follows the best one earns at least its value.
    """
    stages = tree.stages if tree.horizon is None else tree.stages[:-1]
    kept = [np.zeros(stage.vectors.rows.count, bool) for stage in stages]
    for node in tree.nodes.values():
        if node.t < len(kept) or tree.horizon is None:
            kept[tree.index(node.t)][node.plan] = True
    for t, stage in enumerate(stages):
        after = stage.vectors.rows["after"]
        if tree.horizon is None:
            _keep_continuations(kept[0], after)
        elif t + 1 < len(stages):
            kept[t + 1][after[kept[t]].ravel()] = True
    rows = [stage.vectors.rows for stage in stages]
    return [
        StagePlans(row["value"][keep], row["action"][keep])
        for row, keep in zip(rows, kept, strict=True)
    ]


def _keep_continuations(
    kept: Bool[np.ndarray, " N"], after: Int[np.ndarray, "N O"]
) -> None:
    """Keep every plan that a kept plan continues with."""
    new = np.flatnonzero(kept)
    while len(new):
        reached = np.unique(after[new])
        new = reached[~kept[reached]]
        kept[new] = True
