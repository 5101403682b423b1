"""`icl`: a language model as it is, prompted with the demonstrations."""

from sdm.experiments.artifacts import Artifacts
from sdm.experiments.origin import ReadyPolicy, register_origin
from sdm.experiments.spec import Cell, Grid, Options
from sdm.policies.spec import ActingOptions


@register_origin
class InContext:
    """A base model, with options of its inference."""

    name = "icl"
    trains = False
    language_model = True

    def options(
        self, learn: Options, data: Options, grid: Grid
    ) -> tuple[Options, Options]:
        """Return the options of the inference, and none of a dataset."""
        return learn, {}

    def folder(self, cell: Cell, artifacts: Artifacts) -> None:
        """Return None, since nothing is trained."""

    def policy(self, cell: Cell, artifacts: Artifacts) -> ReadyPolicy:
        """Return the prompted base."""
        options = {name: x for name, x in cell.learn.items() if name != "base"}
        return ReadyPolicy(
            f"icl:{cell.learn['base']}", options=ActingOptions(**options)
        )
