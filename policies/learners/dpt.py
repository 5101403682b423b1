"""Decision-pretrained transformer (Lee et al., 2023)."""

from pathlib import Path
from typing import TYPE_CHECKING

from sdm.policies.dpt_config import DPTConfig
from sdm.policies.learner import Progress, register_learner

if TYPE_CHECKING:
    from sdm.data.benchmark import Shown
    from sdm.policies.policy_runs import LearnedRun
    from sdm.policies.prepared import Prepared


class DPTLearner:
    """Learner that predicts the optimal action from demonstrations."""

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
        """Return the numbers of demonstrations that it can read.

        With hidden states, only the number in training: the episode's own transitions
        follow the demonstrations at learned positions.
        """
        most = int(run.about.config["support"])
        return range(most if hidden else 1, most + 1)

    def prepare(self, run: "LearnedRun", bed: "Shown") -> "Prepared":
        """Return the policy for a benchmark; a table if states are observed."""
        from sdm.policies.dpt_training import prepare_dpt

        return prepare_dpt(run, bed)


register_learner(DPTLearner())
