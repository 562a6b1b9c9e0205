"""What a run will take before it is run; `concise-rl plan`."""

from concise_rl.planning.models import MODELS, Dimensions, dimensions_of
from concise_rl.planning.plan import Plan, describe
from concise_rl.planning.request import PlanRequest
from concise_rl.planning.workload import HARDWARE, LAYOUTS, Hardware, Workload, workload_of

__all__ = [
    "HARDWARE",
    "LAYOUTS",
    "MODELS",
    "Dimensions",
    "Hardware",
    "Plan",
    "PlanRequest",
    "Workload",
    "describe",
    "dimensions_of",
    "workload_of",
]
