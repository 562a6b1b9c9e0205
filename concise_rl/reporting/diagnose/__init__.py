"""What is wrong with a run, if anything: from its stored metrics and rollouts, with the cause and the page about it.

Here: `evidence.py` measures, `rules.py` judges, `show.py` prints. Nothing is computed from a model.
"""

from concise_rl.reporting.diagnose.evidence import Evidence
from concise_rl.reporting.diagnose.rules import Finding, Level, diagnose

__all__ = ["Evidence", "Finding", "Level", "diagnose"]
