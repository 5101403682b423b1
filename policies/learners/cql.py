"""Conservative Q-learning (Kumar et al., 2020)."""

from pathlib import Path
from typing import TYPE_CHECKING

from sdm.policies.cql_config import CQLConfig
from sdm.policies.learner import Progress, register_learner

if TYPE_CHECKING:
    from sdm.data.benchmark import Shown
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared


class CQLLearner:
    """Learner of one table of values over stages and observations."""

    name = "cql"
    config = CQLConfig
    resumable = False
    extra = "cql"
    package = "d3rlpy"

    def train(
        self,
        config: CQLConfig,
        out: Path,
        *,
        resume: bool,
        overwrite: bool,
        progress: Progress,
    ) -> "LearnedRun":
        """Train on a dataset and write the folder of the policy."""
        from sdm.policies.cql_training import train_cql

        return train_cql(config, out, overwrite=overwrite, progress=progress)

    def demonstrations(self, run: "LearnedRun", hidden: bool) -> None:
        """Return None, since it reads no demonstrations."""

    def prepare(self, run: "LearnedRun", bed: "Shown") -> "Prepared":
        """Return the policy that takes the action with the highest value."""
        import jax.numpy as jnp

        from sdm.policies.prepared import table
        from sdm.tasks.policy import deterministic

        best = jnp.asarray(run.arrays["q"].argmax(-1), jnp.int32)
        chosen = jnp.broadcast_to(best, (bed.config.tasks, *best.shape))
        return table(bed, deterministic(chosen, run.arrays["q"].shape[-1]))


register_learner(CQLLearner())
