"""Trains three steps on TRL's asynchronous trainer, on as many ranks as accelerate starts; writes what came of it.

Run by test_async_worker.py: `python async_ranks.py OUT ROWS [CHECKPOINT]`, ROWS a rank.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from concise_rl.options import Teaching


def main(out: Path, rows: int, checkpoint: str | None = None) -> None:
    from tests.engine.test_async_worker import gradient_of, make

    fields = {"per_device_train_batch_size": rows, "max_steps": 3, "save_strategy": "steps", "max_grad_norm": 1e9}
    trainer, seen = make(out / "run", teaching=Teaching(truncated="mask"), **fields)
    gradients = gradient_of(trainer)
    trainer.train(resume_from_checkpoint=checkpoint)
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    steps = [(record.completions, record.credit, record.batch.counts) for record in seen.records]
    found = {"gradients": gradients, "weights": weights, "steps": steps}
    torch.save(found, out / f"rank{trainer.accelerator.process_index}.pt")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
