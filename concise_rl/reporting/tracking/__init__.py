"""Trackers as guests of a run: each works offline, falls silent after its first failure, and never stops a run."""

from concise_rl.reporting.tracking.backends import BACKENDS, check_tracker
from concise_rl.reporting.tracking.tracker import TrackedRun, Tracker, tracked_name

__all__ = ["BACKENDS", "TrackedRun", "Tracker", "check_tracker", "tracked_name"]
