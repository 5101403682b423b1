"""The plan for α-MEU over models drawn from the posterior of `pooled`'s prior.

    Q_t(s, a) = r(s, a) + γ [ α min_k + (1 - α) max_k ] Σ_s' P_k(s' | s, a) V_{t+1}(s')

Nature chooses one of K models anew in every decision, as in a `RobustMDP`. Rows of
visited pairs are drawn from Dirichlet(n(s, a, ·) + c m_s), where m_s are the
frequencies of next states after s and c is that of a single Dirichlet prior.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from scipy import sparse

from sdm.data.estimation.radii import dirichlet_draws
from sdm.data.planning.backward import greedy, plan_backward, visited
from sdm.data.planning.evidence import Evidence
from sdm.data.planning.planner import LogPlan, register_planner
from sdm.data.planning.pooling import concentration
from sdm.storage.checks import check_count
from sdm.storage.memory import check_memory
from sdm.tasks.ranges import check_between


@register_planner
@dataclass(frozen=True)
class Posterior:
    """Best plan for α-MEU over models drawn from a posterior.

    Attributes:
        models: number of models K.
        alpha: weight of the worst model, in [0, 1].

    """

    models: int = 10
    alpha: float = 1.0

    name: ClassVar[str] = "posterior"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an option that is out of range."""
        check_count("models", self.models, 1)
        check_between(self, ("alpha",))

    def plan(self, evidence: Evidence, *, horizon: int, seed: int) -> LogPlan:
        """Return the plan; see `Planner`."""
        pairs = np.flatnonzero(evidence.visits)
        drawn = self._models(evidence, pairs, np.random.default_rng(seed))
        discount = evidence.space.discount
        reward = evidence.reward.ravel()[pairs]
        q = np.full(evidence.visits.size, evidence.worst)

        def backup(after: Float[np.ndarray, " S1"]) -> Float[np.ndarray, "S A"]:
            future = (drawn @ after).reshape(self.models, -1)
            worst, best = future.min(0), future.max(0)
            q[pairs] = reward + discount * (best + self.alpha * (worst - best))
            return q.reshape(evidence.visits.shape)

        return plan_backward(evidence, backup, greedy(visited(evidence, 1)), horizon)

    def _models(
        self, evidence: Evidence, pairs: np.ndarray, generator: np.random.Generator
    ) -> sparse.csr_array:
        """Return the rows of K models, one model after another [K R, S1]."""
        state = pairs // evidence.visits.shape[1]
        base = concentration(evidence) * evidence.pooled_rows[state]
        weight = sparse.csr_array(base + evidence.count[pairs])
        weight.sort_indices()
        length = np.diff(weight.indptr)
        inside = np.arange(length.max()) < length[:, None]
        size = self.models * inside.size
        check_memory(40 * size, f"{self.models} models of {len(pairs)} rows")
        parameters = np.zeros(inside.shape)
        parameters[inside] = weight.data
        drawn = dirichlet_draws(parameters, self.models, generator)[:, inside]
        starts = weight.indptr[:-1] + weight.nnz * np.arange(self.models)[:, None]
        ends = np.append(starts.ravel(), self.models * weight.nnz)
        columns = np.tile(weight.indices, self.models)
        shape = (self.models * len(pairs), weight.shape[1])
        return sparse.csr_array((drawn.ravel(), columns, ends), shape=shape)
