r"""Plans: finite-state controllers, whose nodes can differ between stages.

A node at stage t has an action and K assignments of symbols to nodes of stage t + 1.
The agent draws an assignment before it sees the symbol. Against nature, which knows the
hidden state and the node, a plan of an `IntervalPOMDP` has the exact value

    V_t(n, s) = r(s, a_n) + γ min_p Σ_{s',o} p(s', o) Σ_k w_nk V_{t+1}(n_k(o), s')

with the minimum over nature's set of (s, a_n) (Osogami, 2015).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sdm.solvers_jax.attitude import attitude_sign
from sdm.solvers_jax.interval_sets import Sets, interval_sets
from sdm.solvers_jax.rectangular_mdp import worst_case_value
from sdm.tasks.models import Scalar, check_model
from sdm.tasks.policy import draw
from sdm.tasks.rectangular import IntervalPOMDP


class Plan(eqx.Module):
    """A plan of T stages with N nodes each; a policy for `rollout`.

    The first symbol, or 0 if there is none before the first action, is the first node.

    Attributes:
        choice: action of each node.
        weight: probability of each of K assignments.
        after: node of the next stage after each symbol; without effect at the last.

    """

    choice: Int[Array, "*B T N"]
    weight: Float[Array, "*B T N K"]
    after: Int[Array, "*B T N K O"]

    def init(self, model: Any) -> None:
        """Return None: the first symbol is the first node."""

    def act(
        self,
        memory: Any,
        t: int | Int[Array, ""],
        observation: Int[Array, "B N"],
        reward: Float[Array, "B N"],
        key: Key[Array, "B N"],
    ) -> tuple[Int[Array, "B N"], Any]:
        """Follow the assignment drawn at the last stage, and draw the next."""
        task = jnp.arange(len(self.choice))[:, None]
        node = jnp.maximum(observation, 0)
        if memory is not None:
            last, drawn = memory
            later = self.after[task, jnp.maximum(t - 1, 0), last, drawn, node]
            node = jnp.where(t > 0, later, node)
        weight = self.weight[task, t, node]
        uniform = jax.vmap(
            jax.vmap(lambda k: jax.random.uniform(k, dtype=weight.dtype))
        )
        node = node.astype(jnp.int32)
        return self.choice[task, t, node], (node, draw(weight, uniform(key)))


def initial_beliefs(
    model: IntervalPOMDP,
) -> tuple[Float[Array, "*B R S"], Float[Array, "*B R"]]:
    """Return the belief after each first symbol, and the symbol's probability."""
    if model.initial_observation is None:
        one = jnp.ones((*model.initial.shape[:-1], 1), model.initial.dtype)
        return model.initial[..., None, :], one
    seen = jnp.swapaxes(model.initial_observation, -1, -2)
    joint = model.initial[..., None, :] * seen
    mass = joint.sum(-1)
    some = jnp.where(mass > 0, mass, 1)[..., None]
    prior = model.initial[..., None, :]
    return jnp.where(mass[..., None] > 0, joint / some, prior), mass


@worst_case_value.register(IntervalPOMDP)
def _(
    model: IntervalPOMDP, policy: Any, *, attitude: str = "pessimistic"
) -> Float[Array, "*B"]:
    """Return the exact value of a `Plan`."""
    check_model(model)
    sign = attitude_sign(attitude)
    _check_plan(model, policy)
    batch = model.reward.shape[:-2]
    root, mass = initial_beliefs(model)
    flat = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[len(batch) :]),
        (interval_sets(model), policy, root, mass),
    )
    return _evaluate(flat, sign).reshape(batch)


@jax.jit
def _evaluate(tasks: Any, sign: Scalar) -> Float[Array, " B"]:
    def one(task: tuple[Sets, Plan, Array, Array]) -> Array:
        sets, plan, root, mass = task
        vector = _plan_vectors(sets, plan, sign)[: len(mass)]
        return (mass * (root * vector).sum(-1)).sum()

    return jax.lax.map(one, tasks)


def _plan_vectors(sets: Sets, plan: Plan, sign: Scalar) -> Float[Array, "N S"]:
    """Return the value of every node of stage 0 from every state."""
    states = sets.reward.shape[0]
    anywhere = jnp.full((1, states), 1 / states, sets.reward.dtype)

    def stage(later: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        choice, weight, after = now
        gain = jnp.einsum("nk,nkos->nos", weight, later[after])
        _, future = sets.chosen(choice).reply(anywhere, sign * gain[None])
        paid = sets.reward.T[choice]
        return paid + sets.discount * sign * future[0], None

    end = jnp.zeros((plan.choice.shape[-1], states), sets.reward.dtype)
    stages = (plan.choice, plan.weight, plan.after)
    return jax.lax.scan(stage, end, stages, reverse=True)[0]


def _check_plan(model: IntervalPOMDP, plan: Any) -> None:
    """Check the class, shapes and indices of a plan."""
    if not isinstance(plan, Plan):
        raise ValueError(
            f"policy = {type(plan).__name__}: must be a `Plan` for IntervalPOMDP models"
        )
    *batch, _, actions = model.reward.shape
    symbols = model.observation_lower.shape[-1]
    stages, nodes = plan.choice.shape[-2:]
    branches = plan.weight.shape[-1]
    lead = (*batch, stages, nodes)
    for name, expected in (
        ("choice", lead),
        ("weight", (*lead, branches)),
        ("after", (*lead, branches, symbols)),
    ):
        found = getattr(plan, name).shape
        if found != expected:
            raise ValueError(f"plan.{name} has shape {found}: must be {expected}")
    first = model.initial_observation
    if first is not None and nodes < first.shape[-1]:
        raise ValueError(
            f"plan has {nodes} nodes: must have one for each first symbol, "
            f"{first.shape[-1]}"
        )
    for name, limit in (("choice", actions), ("after", nodes)):
        index = np.asarray(getattr(plan, name))
        wrong = (index < 0) | (index >= limit)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(
                f"plan.{name}{list(at)} = {index[at]}: must lie between 0 and "
                f"{limit - 1}"
            )
    weight = np.asarray(plan.weight)
    wrong = ~(np.abs(weight.sum(-1) - 1) <= 1e-5) | (weight < 0).any(-1)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"plan.weight{list(at)} = {weight[at]}: must be probabilities that sum to 1"
        )
