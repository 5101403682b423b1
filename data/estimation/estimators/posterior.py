"""K models drawn from the Dirichlet posterior, as one of three classes of models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from sdm.data.estimation.config import EstimationConfig
from sdm.data.estimation.counts import Counts
from sdm.data.estimation.estimator import Estimate, Progress, register_estimator
from sdm.data.estimation.radii import dirichlet_draws
from sdm.data.estimation.rows import Rows, complete, normalised, posterior_of
from sdm.data.estimation.tables import estimate_tasks
from sdm.data.logs import Logs
from sdm.storage.checks import check_count
from sdm.storage.memory import check_memory
from sdm.tasks.hidden_mdp import hidden_model
from sdm.tasks.models import APOMDP, MDP, RobustMDP
from sdm.tasks.transitions import dense

Form = Literal["robust", "hidden", "apomdp"]


@register_estimator
@dataclass(frozen=True)
class PosteriorModels:
    """K models drawn from the posterior.

    Attributes:
        models: number of models K.
        form: `robust` (a RobustMDP, whose nature chooses a model in each decision),
            `hidden` (an MOMDP: the agent learns which of the models is true) or
            `apomdp` (the same with α-MEU).
        alpha: weight of the worst model, in [0, 1] (robust and apomdp).

    """

    models: int = 5
    form: Form = "robust"
    alpha: float = 1.0

    name: ClassVar[str] = "posterior"

    def estimate(
        self,
        logs: Logs,
        config: EstimationConfig,
        *,
        held_out: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> Estimate:
        """Return the models of each task; see `Estimator`.

        Raises:
            ValueError: if the form is unknown or has no masks, or an option is invalid.

        """
        check_count("models", self.models, 1)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha = {self.alpha:g}: must lie between 0 and 1")
        if self.form not in FORMS:
            raise ValueError(f"form = {self.form!r}: must be one of {', '.join(FORMS)}")
        if config.unvisited == "forbid" and self.form != "robust":
            raise ValueError(
                f"unvisited = 'forbid': form = {self.form!r} has no masks of actions; "
                "use 'worst' or 'prior'"
            )
        generator = np.random.default_rng(seed)

        def model(counts: Counts, worst: float) -> tuple[Any, Rows, None]:
            drawn = _drawn(counts, config, self.models, generator)
            rows = complete(counts, config, drawn, worst)
            return FORMS[self.form](self, counts, config, rows), rows, None

        note = (
            f"{self.models} models drawn from the posterior, which share mean rewards. "
            "They are a sample, and cover the truth with no stated probability."
        )
        return estimate_tasks(
            logs, config, model, held_out, progress, notes=lambda random: (note,)
        )


def _drawn(
    counts: Counts,
    config: EstimationConfig,
    models: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return K draws [K, S, A, N] of all rows; rows without parameters are equal."""
    posterior = posterior_of(counts, config)
    shape = (models, *posterior.shape)
    check_memory(4 * 8 * int(np.prod(shape)), f"{models} models")
    rows = posterior.reshape(-1, posterior.shape[-1])
    empty = rows.sum(-1) == 0
    drawn = dirichlet_draws(np.where(empty[:, None], 1.0, rows), models, generator)
    return drawn.reshape(shape)


def _robust(
    options: PosteriorModels, counts: Counts, config: EstimationConfig, rows: Rows
) -> RobustMDP:
    mask = rows.admissible
    return RobustMDP(
        counts.transition(rows.chance),
        jnp.asarray(rows.reward),
        jnp.asarray(normalised(counts.initial)),
        options.alpha,
        config.discount,
        None if mask is None else jnp.asarray(mask),
    )


def _hidden(
    options: PosteriorModels, counts: Counts, config: EstimationConfig, rows: Rows
) -> Any:
    many = (options.models,)
    initial = normalised(counts.initial)
    every = MDP(
        counts.transition(rows.chance),
        jnp.asarray(np.broadcast_to(rows.reward, many + rows.reward.shape)),
        jnp.asarray(np.broadcast_to(initial, many + initial.shape)),
        config.discount,
    )
    return hidden_model(every, np.full(many, 1 / options.models))


def _apomdp(
    options: PosteriorModels, counts: Counts, config: EstimationConfig, rows: Rows
) -> APOMDP:
    """Return an APOMDP in which every state is observed."""
    models, (states, actions) = options.models, rows.reward.shape
    check_memory(8 * models * actions * states**2, "observations of every state")
    seen = np.broadcast_to(np.eye(states), (models, actions, states, states))
    return APOMDP(
        dense(counts.transition(rows.chance)),
        jnp.asarray(seen),
        jnp.asarray(rows.reward),
        jnp.asarray(normalised(counts.initial)),
        options.alpha,
        config.discount,
        jnp.asarray(seen[:, 0]),
    )


FORMS: dict[str, Callable[..., Any]] = {
    "robust": _robust,
    "hidden": _hidden,
    "apomdp": _apomdp,
}
