"""What the shapers' metrics share."""

from __future__ import annotations

from torch import Tensor


def mean_where(values_N: Tensor, mask_N: Tensor) -> float:
    """Mean of the values that the mask keeps; 0 where it keeps none."""
    return float(values_N[mask_N].double().mean()) if bool(mask_N.any()) else 0.0
