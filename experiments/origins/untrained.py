"""`untrained`: a policy without training, by its name."""

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.origin import ReadyPolicy, register_origin
from sdm.experiments.spec import Cell, Grid, Options


@register_origin
class Untrained:
    """A policy by its name, with the prior of the test's tasks."""

    name = "untrained"
    trains = False
    language_model = False

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return the name, and the options of the prior."""
        prior = {name: x for name, x in data.items() if name in grid.prior}
        return {"name": learn["name"]}, prior

    def folder(self, cell: Cell, artifacts: Artifacts) -> None:
        """Return None, since nothing is trained."""

    def policy(self, cell: Cell, artifacts: Artifacts) -> ReadyPolicy:
        """Return the policy of that name."""
        return ReadyPolicy(cell.learn["name"])
