"""The embedded tasks, small enough to train on one core: task, teacher, law, oracle and warm-up.

Here: tasks that the package makes itself. Not here: data sets that come from elsewhere (`data/`).
"""

from concise_rl.testbeds.chain_sum import ChainSum
from concise_rl.testbeds.short_sums import ShortSums

TESTBEDS: dict[str, type] = {"chain_sum": ChainSum, "short_sums": ShortSums}
"""The embedded tasks by the name that `data=` and `benchmark=` give them."""

__all__ = ["TESTBEDS", "ChainSum", "ShortSums"]
