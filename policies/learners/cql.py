"""Conservative Q-learning (Kumar et al., 2020): options and registration."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdm.policies.learner import Progress, register_learner
from sdm.storage.checks import check_count

if TYPE_CHECKING:
    from sdm.data.benchmark import Benchmark
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared


@dataclass(frozen=True)
class CQLConfig:
    """Train conservative Q-learning on all episodes of a dataset, by d3rlpy.

    It reads no demonstrations: what it learns is one policy for all tasks.

    Attributes:
        data: oracle dataset, from `sdm solve --out`; its random episodes count too.
        steps: optimizer steps.
        batch_size: transitions per step.
        learning_rate: learning rate of Adam.
        conservative: weight of the conservative penalty.
        seed: random seed of weights and batches.

    """

    data: str
    steps: int = 20_000
    batch_size: int = 32
    learning_rate: float = 6.25e-5
    conservative: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `ValueError` for numbers that make no sense."""
        check_count("steps", self.steps, 1)
        check_count("batch_size", self.batch_size, 1)
        check_count("seed", self.seed, 0, 2**32 - 1)
        if not 0 < self.learning_rate < 1:
            raise ValueError(
                f"learning_rate = {self.learning_rate}: must lie between 0 and 1"
            )
        if not self.conservative >= 0:
            raise ValueError(f"conservative = {self.conservative}: must be 0 or more")


class CQLLearner:
    """Learns one table of values over stages and observations."""

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
        """It reads none."""

    def prepare(self, run: "LearnedRun", bed: "Benchmark") -> "Prepared":
        """Take the action of the highest value."""
        import jax.numpy as jnp

        from sdm.policies.prepared import table
        from sdm.tasks.policy import deterministic

        best = jnp.asarray(run.arrays["q"].argmax(-1), jnp.int32)
        chosen = jnp.broadcast_to(best, (bed.config.tasks, *best.shape))
        return table(bed, deterministic(chosen, run.arrays["q"].shape[-1]))


register_learner(CQLLearner())
