"""Decision-pretrained transformer (Lee et al., 2023)."""

from pathlib import Path
from typing import TYPE_CHECKING

from sdm.policies.dpt_config import DPTConfig
from sdm.policies.learner import Progress, register_learner

if TYPE_CHECKING:
    from sdm.data.benchmark import Benchmark
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared


class DPTLearner:
    """Learns to read demonstrations and to answer with an optimal action."""

    name = "dpt"
    config = DPTConfig
    resumable = True
    extra = ""
    package = ""

    def train(
        self,
        config: DPTConfig,
        out: Path,
        *,
        resume: bool,
        overwrite: bool,
        progress: Progress,
    ) -> "LearnedRun":
        """Train on a dataset and write the folder of the policy."""
        from sdm.policies.dpt_training import train_dpt

        return train_dpt(
            config, out, resume=resume, overwrite=overwrite, progress=progress
        )

    def demonstrations(self, run: "LearnedRun", hidden: bool) -> range:
        """Return how many it reads; in hidden tasks the episode's place is fixed."""
        most = int(run.about.config["support"])
        return range(most if hidden else 1, most + 1)

    def prepare(self, run: "LearnedRun", bed: "Benchmark") -> "Prepared":
        """Make the policy: a table where states are observed."""
        from sdm.policies.dpt_training import prepare_dpt

        return prepare_dpt(run, bed)


register_learner(DPTLearner())
