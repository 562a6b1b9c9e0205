"""DECS's curriculum: a share of all-right groups joins the mixed ones, and grows while answers carry less ballast."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from concise_rl.batch import PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Filter, State
from concise_rl.options import choose

NRP = "nrp"
"""Row value: the share of an answer up to its first right part; 0 where it has none."""

KAPPA_MOST = 0.99


class KappaVariant(str, Enum):
    """Whether kappa is held in [0, 0.99], or as in the released code runs free."""

    clamp = "clamp"
    code = "code"


@dataclass
class DecsKappa(Filter):
    """Keeps groups with variance, and of the all-right ones as many as kappa allows.

    Source: arXiv 2509.25827; pixas/DECS @0d12e53. In an all-right group only length is left to teach, so their share
    grows with the share `nrp` of the tokens up to the first right part (the "necessary reasoning prefix").

        kept  <- kept + groups with variance,  while kappa > 0
        extra  = int(kappa * kept / (1 - kappa)) all-right groups, at most those there are, chosen by (seed, step)
        kept  <- 0 once some were added
        afterwards   kappa <- kappa + rate * (nrp - last) unless last = 0,   last <- nrp

    A step is filtered with the kappa of earlier steps. nrp is the mean of `parts["nrp"]` over the rows kept that have
    one above 0; with none kappa stays. Groups that are all wrong, or of one reward that is not right, are left out.
    `variant=clamp` holds kappa in [0, 0.99]; under `code` it may leave it, and at 1 and above nothing is added, where
    the released code divides by 0 or asks for a negative number; it also forgets `kept` where extra is above 0 though
    no all-right group was there. The released code measures nrp in chunks of the thought, and forgets `kept` at every
    optimizer step too; here it is carried, as one generation is one step.

    State: kappa, last, kept.

    Attributes:
        rate: of kappa, 0.2.
        variant: `clamp` or `code`.
        seed: of the choice among all-right groups.

    Raises:
        UserError: an unknown variant, or a rate that is not positive.
    """

    rate: float = 0.2
    variant: KappaVariant = KappaVariant.clamp
    seed: int = 0

    def __post_init__(self) -> None:
        self.variant = choose("DecsKappa.variant", KappaVariant, self.variant)
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UserError(f"DecsKappa.rate={self.rate}: must be positive, 0.2 is the released code's")

    @property
    def needs(self) -> frozenset[str]:
        """The share of an answer up to its first right part."""
        return frozenset({PART_PREFIX + NRP})

    def init(self) -> State:
        """kappa 0, last 0.5, nothing kept."""
        return {"kappa": 0.0, "last": 0.5, "kept": 0}

    def __call__(self, batch: RolloutBatch, state: State) -> tuple[Tensor, State]:
        """(N,) bool, whole groups; the state with this step's nrp in it."""
        kappa, kept = state["kappa"], state["kept"]
        counts_PG, right_PG = batch.by_group(batch.counts), batch.by_group(batch.correct & batch.counts)
        flat_P = batch.without_variance(batch.task_reward)
        teach_P = ~flat_P
        all_right_P = flat_P & (right_PG == counts_PG).all(dim=1) & counts_PG.any(dim=1)
        if kappa > 0:
            kept += int(teach_P.sum())
            extra = int(kappa * kept / (1 - kappa)) if kappa < 1 else 0
            available = all_right_P.nonzero().flatten().tolist()
            chosen = random.Random(f"{self.seed}/{batch.step}").sample(available, min(extra, len(available)))
            teach_P[torch.tensor(chosen, dtype=torch.long)] = True
            kept = 0 if chosen or (extra > 0 and self.variant is KappaVariant.code) else kept
        keep_N = batch.per_row(teach_P)
        return keep_N, self._moved(kappa, state["last"], kept, batch, keep_N)

    def _moved(self, kappa: float, last: float, kept: int, batch: RolloutBatch, keep_N: Tensor) -> State:
        shares = batch.part(NRP)[keep_N & batch.counts]
        shares = shares[shares > 0]
        if not shares.numel():
            return {"kappa": kappa, "last": last, "kept": kept}
        nrp = float(shares.mean())
        kappa = kappa + self.rate * (nrp - last) if last != 0 else kappa
        if self.variant is KappaVariant.clamp:
            kappa = min(max(kappa, 0.0), KAPPA_MOST)
        return {"kappa": kappa, "last": nrp, "kept": kept}
