"""Decision models, and checks of their arrays.

Axis names in the whole package:

    *B  leading batch axes (tasks, devices), possibly none
    N   episodes of one task            T  decisions (the horizon)
    S   states       A  actions         O  observations
    K   models in an ambiguity set

Horizon convention: T decisions at stages t = 0, ..., T-1 and T+1 values; stage 0 comes
first and the value after the last decision is zero. The same code runs a single task, a
batch and a grid of devices. Arrays keep their floating-point type. Those that change
with the stage have an axis T after the axes of the batch: see `stages`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from sdm.storage.checks import check_count as check_count
from sdm.storage.checks import check_horizon as check_horizon
from sdm.tasks.array_checks import check_rows, check_shape, check_unit_interval
from sdm.tasks.model_kinds import Model as Model
from sdm.tasks.model_kinds import register_model
from sdm.tasks.model_kinds import states_observed as states_observed
from sdm.tasks.reward_law import RewardLaw, law_of
from sdm.tasks.stages import axes, check_equal_lengths, lead_of, shape_at_stage
from sdm.tasks.task_checks import check_task
from sdm.tasks.transition_lists import sparse_transition
from sdm.tasks.transitions import Transition, check_transition

Scalar = float | Float[Array, ""]  # a Python number, or its tracer under `jit`


@register_model
class MDP(eqx.Module):
    """Markov decision processes, batched on their leading axes.

    Attributes:
        transition: P(s' | s, a) [*B, S, A, S], or a `SparseTransition`.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.
        admissible: actions that can be chosen; None for all. See `tasks.admissible`.
        law: law of the paid rewards; None if r(s, a) is paid. See `tasks.reward_law`.

    Example:
        A machine that wears while it runs; a repair costs 1.

        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import MDP, solve
        >>> good, worn = [[0.9, 0.1], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]
        >>> reward = jnp.array([[1.0, -1.0], [0.0, -1.0]])
        >>> machine = MDP(jnp.array([good, worn]), reward, jnp.array([1.0, 0.0]), 0.95)
        >>> print(solve(machine, horizon=3).policy)
        [[0 1]
         [0 0]
         [0 0]]

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        initial=1, transition=3, reward=2, admissible=2
    )

    transition: Transition
    reward: Float[Array, "... S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar
    admissible: Bool[Array, "... S A"] | None = None
    law: RewardLaw | None = None

    @classmethod
    def sparse(
        cls,
        successors: object,
        probabilities: object,
        reward: object,
        initial: object,
        discount: Scalar,
    ) -> "MDP":
        """Return MDPs that list the possible next states of each state and action.

        Args:
            successors: indices of next states [S, A, N], or [*B, S, A, N] if they
                differ between tasks; see `sparse_transition`.
            probabilities: P(s' | s, a) of each [*B, S, A, N].
            reward: expected reward r(s, a) [*B, S, A].
            initial: distribution of the first state [*B, S].
            discount: factor per stage.

        Raises:
            ValueError: if the lists are invalid.

        """
        transition = sparse_transition(successors, probabilities)
        return cls(transition, jnp.asarray(reward), jnp.asarray(initial), discount)


@register_model
class RobustMDP(eqx.Module):
    """Fully observed tasks whose transition law is one of K candidates.

    Attributes:
        transition: P_k(s' | s, a) of each model, dense or a `SparseTransition`.
        reward: expected reward r(s, a), the same under every model.
        initial: distribution of the first state.
        alpha: weight of the worst model, in [0, 1].
        discount: factor per stage, in [0, 1], common to the batch.
        admissible: actions that can be chosen; None for all. See `tasks.admissible`.

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        initial=1, transition=4, reward=2, admissible=2
    )

    transition: Transition  # [*B, K, S, A, S]
    reward: Float[Array, "... S A"]
    initial: Float[Array, "*B S"]
    alpha: Scalar
    discount: Scalar
    admissible: Bool[Array, "... S A"] | None = None


@register_model
class POMDP(eqx.Module):
    """Partially observed MDPs; the policy acts on the belief over states.

    Attributes:
        transition: P(s' | s, a) [*B, S, A, S], or a `SparseTransition`.
        observation: Z(o | s', a), observed after reaching s' by action a.
        reward: expected reward r(s, a) of one decision.
        initial: distribution of the first state.
        discount: factor per stage, in [0, 1], common to the batch.
        initial_observation: Z_1(o | s) of the first state, or None if there is no
            observation before the first action.
        admissible: actions that can be chosen; None for all. See `tasks.admissible`.

    Example:
        Two states that never change, a look that is right with 0.8, and two guesses.

        >>> import jax.numpy as jnp
        >>> from sdm.solvers_jax import POMDP, belief_tree_value
        >>> stay = jnp.broadcast_to(jnp.eye(2)[:, None], (2, 3, 2))
        >>> look = jnp.broadcast_to(jnp.array([[0.8, 0.2], [0.2, 0.8]]), (3, 2, 2))
        >>> reward = jnp.array([[0.0, 1.0, -1.0], [0.0, -1.0, 1.0]])
        >>> task = POMDP(stay, look, reward, jnp.array([0.5, 0.5]), discount=1.0)
        >>> print(f"{belief_tree_value(task, horizon=2):.2f}")
        0.60

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        initial=1, transition=3, observation=3, reward=2, admissible=2
    )

    transition: Transition
    observation: Float[Array, "... A S O"]
    reward: Float[Array, "... S A"]
    initial: Float[Array, "*B S"]
    discount: Scalar
    initial_observation: Float[Array, "*B S O"] | None = None
    admissible: Bool[Array, "... S A"] | None = None


@register_model
class APOMDP(eqx.Module):
    """Ambiguous POMDPs: K candidate models and an attitude to the ambiguity.

    Attributes:
        transition: P_k(s' | s, a) of each model, dense or a `SparseTransition`.
        observation: Z_k(o | s', a) of each model.
        reward: expected reward r(s, a), the same under every model.
        initial: distribution of the first state.
        alpha: weight of the worst model, in [0, 1]; 1 is pessimistic, 0 optimistic.
        discount: factor per stage, in [0, 1], common to the batch.
        initial_observation: Z_1k(o | s) of each model, or None.

    """

    axes_at_a_stage: ClassVar[Mapping[str, int]] = axes(
        initial=1, transition=4, observation=4, reward=2
    )

    transition: Transition  # [*B, K, S, A, S]
    observation: Float[Array, "... K A S O"]
    reward: Float[Array, "... S A"]
    initial: Float[Array, "*B S"]
    alpha: Scalar
    discount: Scalar
    initial_observation: Float[Array, "*B K S O"] | None = None


def batch_shape(model: Any) -> tuple[int, ...]:
    """Return the sizes of the leading axes *B of a model; () for a single task.

    A class of models with a property `batch` says itself.
    """
    own = getattr(model, "batch", None)
    return shape_at_stage(model, "reward")[:-2] if own is None else tuple(own)


def check_model(model: Any) -> None:
    """Check a model's shapes, distributions, rewards, discount and alpha.

    It reads values on the host: call it when a model enters the package, and never
    under `jit`. A reward of -inf is valid where masks are: see `tasks.admissible`.

    A class of models with a method `check` checks itself.

    Raises:
        TypeError: if a field is not an array, such as a list.
        ValueError: naming the field, the index and the invalid number.

    """
    own = getattr(model, "check", None)
    if own is not None:
        own()
        return
    check_task(model, ("transition", "observation"))
    *batch, states, actions = shape_at_stage(model, "reward")
    lead, letters = lead_of(model, "transition", batch)
    models: list[int] = []
    if isinstance(model, APOMDP | RobustMDP):
        if len(model.transition.shape) != len(lead) + 4:
            raise ValueError(
                f"transition has shape {model.transition.shape}: must be "
                "[*B, K, S, A, S]"
            )
        models, letters = [model.transition.shape[len(lead)]], f"{letters}K, "
        check_unit_interval("alpha", model.alpha)
    expected = (*lead, *models, states, actions, states)
    check_shape("transition", model.transition, expected, f"[{letters}S, A, S]")
    check_transition(model.transition)
    if not isinstance(model, MDP | RobustMDP):
        _check_observation(model, (*batch, *models), (states, actions))
    check_equal_lengths(model)


def _check_observation(
    model: POMDP | APOMDP, lead: tuple[int, ...], sizes: tuple[int, int]
) -> None:
    """Check observations of a model with leading axes *B, and K if it has them."""
    k, (states, actions) = "K, " if isinstance(model, APOMDP) else "", sizes
    symbols = np.shape(model.observation)[-1:] or (0,)
    batch = lead[: len(lead) - bool(k)]
    front, letters = lead_of(model, "observation", batch)
    shape = (*front, *lead[len(batch) :], actions, states, *symbols)
    check_shape("observation", model.observation, shape, f"[{letters}{k}A, S, O]")
    check_rows("observation", model.observation)
    if (first := model.initial_observation) is not None:
        shape = (*lead, states, *symbols)
        check_shape("initial_observation", first, shape, f"[*B, {k}S, O]")
        check_rows("initial_observation", first)


@states_observed.register(MDP)
@states_observed.register(POMDP)
def _(model: MDP | POMDP) -> MDP:
    fields = (model.transition, model.reward, model.initial, model.discount)
    return MDP(*fields, model.admissible, law_of(model))
