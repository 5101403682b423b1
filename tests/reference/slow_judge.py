"""A judge that takes SLOW_JUDGE seconds to answer five comparisons."""

import os
import sys
import time

from sdm.feedback import judge
from sdm.feedback.judges.synthetic import SyntheticJudge


class Slow(SyntheticJudge):
    """A synthetic judge that waits, and says on stderr that it is asked."""

    together, reads_task, name = 5, False, "slow"

    def compare(self, items, pairs, *, seed):
        """Wait, then answer."""
        time.sleep(float(os.environ.get("SLOW_JUDGE", "0")))
        print("asked", len(pairs), file=sys.stderr, flush=True)
        return super().compare(items, pairs, seed=seed)


judge.register_judge("slow")(lambda text: Slow(0.9))
judge.judges.cache_clear()
