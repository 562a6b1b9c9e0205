"""The embedded tasks, small enough to train on one core: task, teacher, law, oracle and warm-up.

Here: tasks that the package makes itself. Not here: data sets that come from elsewhere (`data/`).
"""

from concise_rl.testbeds.chain_sum import ChainSum
from concise_rl.testbeds.gym import CountBits, SpellBackward
from concise_rl.testbeds.running_total import RunningTotal
from concise_rl.testbeds.short_sums import ShortSums
from concise_rl.testbeds.which_sum import WhichSum
from concise_rl.testbeds.word_problems import WordProblems

TESTBEDS: dict[str, type] = {
    "chain_sum": ChainSum,
    "count_bits": CountBits,
    "running_total": RunningTotal,
    "short_sums": ShortSums,
    "spell_backward": SpellBackward,
    "which_sum": WhichSum,
    "word_problems": WordProblems,
}
"""The embedded tasks by the name that `data=` and `benchmark=` give them."""

__all__ = [
    "TESTBEDS",
    "ChainSum",
    "CountBits",
    "RunningTotal",
    "ShortSums",
    "SpellBackward",
    "WhichSum",
    "WordProblems",
]
