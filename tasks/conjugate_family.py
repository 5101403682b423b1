"""Interface of families whose posterior over parameters is determined by counts."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from sdm.tasks.family import Params, TaskFamily


@runtime_checkable
class ConjugateFamily(TaskFamily, Protocol):
    """A family with a conjugate posterior: a few counts are a sufficient statistic.

    Its models must be linear in the parameters: the posterior-mean model is then the
    model of the posterior mean, and the exact Bayes-adaptive plan is a plan over states
    and counts (Duff, 2002).

    Attributes:
        counts: number C of counts.

    """

    @property
    def counts(self) -> int: ...  # noqa: D102

    def tally(
        self,
        state: Int[np.ndarray, "*B"],
        action: Int[np.ndarray, "*B"],
        following: Int[np.ndarray, "*B"],
    ) -> Int[np.ndarray, "*B C"]:
        """Return the increment of the counts for each transition."""
        ...

    def posterior_mean(self, counts: Int[np.ndarray, "*B C"]) -> Params:
        """Return the posterior mean of the parameters given the counts."""
        ...
