r"""Machine maintenance with unknown wear, breakdown and repair probabilities.

The condition c runs from 0 (as new) to F - 1 (poor); F is a failed machine. Actions:

    run      pays 1 - c/F; fails with probability b, else wears with probability w:
             c moves to F, else to min(c + 1, F - 1), else stays
    inspect  like run, but shows the next condition exactly; pays i less
    repair   pays -r; c moves to 0 with probability q, else stays
    replace  pays -R; c moves to 0

A failed machine pays nothing when run, and stays failed. Each task draws its own w, b
and q, and starts in a uniformly random condition.

In the POMDP, a symbol is a condition. The agent always observes a failure, and the
condition after inspect and replace. Otherwise, a working machine shows its condition
with probability a and each of the F - 1 other working conditions with probability
(1 - a)/(F - 1), also before the first action. The APOMDP has K such models: the nominal
one, and perturbations of its rows (`sdm.tasks.ambiguity`).

Source: machine replacement after Derman (1963), with inspections and noisy conditions
as in Smallwood and Sondik (1973); Monahan (1982) surveys such models. The detailed
rules and all numbers are ours.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sdm.tasks.ambiguity import check_ambiguity, nearby_pomdps
from sdm.tasks.family import (
    SET_KEY,
    Component,
    Defaults,
    Kind,
    Params,
    Spaces,
)
from sdm.tasks.models import APOMDP, MDP, POMDP, check_count
from sdm.tasks.ranges import UniformFamily, check_between
from sdm.tasks.registry import register
from sdm.tasks.truncated_beta import truncated_beta_mean

RUN, INSPECT, REPAIR, REPLACE = range(4)
NAMES = ("as new", "good", "fair", "poor", "failed")  # the five default conditions


@register
@dataclass(frozen=True)
class MaintenanceFamily(UniformFamily):
    """Maintenance tasks that differ in wear, breakdowns and repairs.

    Attributes:
        wear_min: smallest probability w that a running machine wears.
        wear_max: largest probability w that a running machine wears.
        breakdown_min: smallest probability b that a running machine fails.
        breakdown_max: largest probability b that a running machine fails.
        repair_min: smallest probability q that a repair succeeds.
        repair_max: largest probability q that a repair succeeds.
        conditions: number F + 1 of conditions; the last is failure.
        inspection_cost: cost i of an inspection.
        repair_cost: cost r of a repair, successful or not.
        replacement_cost: cost R of a new machine.
        accuracy: probability a that an observation is the true condition.
        discount: discount factor per stage, in [0, 1].
        models: size K of an ambiguity set; the first is the nominal model.
        alpha: weight of the worst model, in [0, 1].
        radius: largest KL divergence of a model to the nominal one, in nats.
        concentration: concentration of the Dirichlet distributions that perturb rows.

    """

    wear_min: float = 0.1
    wear_max: float = 0.8
    breakdown_min: float = 0.02
    breakdown_max: float = 0.15
    repair_min: float = 0.1
    repair_max: float = 0.9
    conditions: int = 5
    inspection_cost: float = 0.05
    repair_cost: float = 0.3
    replacement_cost: float = 1.2
    accuracy: float = 0.6
    discount: float = 0.95
    models: int = 5
    alpha: float = 0.5
    radius: float = 0.05
    concentration: float = 50.0

    name: ClassVar[str] = "maintenance"
    drawn: ClassVar[tuple[str, ...]] = ("wear", "breakdown", "repair")
    cells: ClassVar[tuple[int, ...]] = (6, 4, 6)
    kinds: ClassVar[frozenset[Kind]] = frozenset({"mdp", "pomdp", "apomdp"})
    defaults: ClassVar[Defaults] = Defaults(observes_reward=frozenset({"mdp"}))
    counts: ClassVar[int] = 6  # outcomes: failed, wore, held, lasted, repaired, not

    def __post_init__(self) -> None:
        """Raise `ValueError` for invalid ranges, sizes or costs."""
        self.check_ranges(self.drawn)
        check_count("conditions", self.conditions, 3)
        check_between(self, ("accuracy", "discount"))
        costs = ("inspection_cost", "repair_cost", "replacement_cost")
        check_between(self, costs, most=np.inf)
        check_ambiguity(self.models, self.radius, self.concentration, self.alpha)

    @property
    def spaces(self) -> Spaces:
        """The state, and the symbol that shows it, have one component, `condition`."""
        names = NAMES if self.conditions == len(NAMES) else ()
        return Spaces(
            state=(Component("condition", self.conditions, names),),
            actions=("run", "inspect", "repair", "replace"),
        )

    def model(self, params: Params, kind: Kind) -> MDP | POMDP | APOMDP:
        """Return the models of tasks with these probabilities."""
        mdp = self._mdp(params)
        if kind == "mdp":
            return mdp
        exact, working = np.eye(self.conditions), self.conditions - 1
        other = (1 - self.accuracy) / (working - 1)
        noisy = exact.copy()
        noisy[:working, :working] = np.where(np.eye(working), self.accuracy, other)
        batch = mdp.reward.shape[:-2]
        first, shown = (
            jnp.broadcast_to(jnp.asarray(x, mdp.reward.dtype), (*batch, *x.shape))
            for x in (noisy, np.stack([noisy, exact, noisy, exact]))
        )
        nominal = POMDP(
            mdp.transition, shown, mdp.reward, mdp.initial, mdp.discount, first
        )
        if kind == "pomdp":
            return nominal
        return nearby_pomdps(nominal, params[SET_KEY], self)

    def _mdp(self, params: Params) -> MDP:
        c, failed = np.arange(self.conditions), self.conditions - 1
        kind, alone = params["wear"].dtype, (None,) * params["wear"].ndim
        worse = np.where(c < failed, np.minimum(c + 1, failed - 1), failed)
        stays, worn, down, new = (
            jnp.asarray(np.eye(len(c))[into], kind)[alone]  # shared by all tasks
            for into in (c, worse, np.full_like(c, failed), np.zeros_like(c))
        )
        w, b, q = (params[name][..., None, None] for name in self.ranges)
        run = b * down + (1 - b) * (w * worn + (1 - w) * stays)
        repair = q * new + (1 - q) * stays
        moves = (run, run, repair, jnp.broadcast_to(new, run.shape))
        pay = np.empty((len(c), 4))
        pay[:, RUN] = 1 - c / failed
        pay[:, INSPECT] = pay[:, RUN] - self.inspection_cost
        pay[:, REPAIR], pay[:, REPLACE] = -self.repair_cost, -self.replacement_cost
        shape = (*params["wear"].shape, len(c))
        return MDP(
            transition=jnp.stack(moves, axis=-2),
            reward=jnp.broadcast_to(jnp.asarray(pay, kind), (*shape, 4)),
            initial=jnp.full(shape, 1 / len(c), kind),
            discount=self.discount,
        )

    def tally(
        self,
        state: Int[np.ndarray, "*B"],
        action: Int[np.ndarray, "*B"],
        following: Int[np.ndarray, "*B"],
    ) -> Int[np.ndarray, "*B 6"]:
        """Count the outcomes of runs, inspected or not, and of repairs."""
        failed = self.conditions - 1
        ran = ((action == RUN) | (action == INSPECT)) & (state < failed)
        poor, stayed = state == failed - 1, following == state
        repairs = (action == REPAIR) & (state > 0)
        outcomes = [ran & (following == failed), ran & ~poor & (following == state + 1)]
        outcomes += [ran & ~poor & stayed, ran & poor & stayed]
        outcomes += [repairs & (following == 0), repairs & stayed]
        return np.stack(outcomes, axis=-1).astype(np.int64)

    def posterior_mean(self, counts: Int[np.ndarray, "*B 6"]) -> Params:
        """Return the means of the independent truncated Beta posteriors."""
        broke, wore, held, lasted, repaired, unrepaired = np.moveaxis(counts, -1, 0)
        tally = ((wore, held), (broke, wore + held + lasted), (repaired, unrepaired))
        return {
            name: jnp.asarray(
                truncated_beta_mean(1.0 + yes, 1.0 + no, *span), jnp.result_type(float)
            )
            for (name, span), (yes, no) in zip(self.ranges.items(), tally, strict=True)
        }
