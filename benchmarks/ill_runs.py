"""Runs of the embedded model that are ill on purpose, and one that is healthy, for `concise-rl diagnose`.

python benchmarks/ill_runs.py runs/ill        makes them all, some minutes of one core, and prints what is found
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PAY_BREVITY = '''
from dataclasses import dataclass

from concise_rl.methods import Out, Shaper


@dataclass
class PayBrevity(Shaper):
    """A mistake that is often made: the length term does not ask whether the answer is right."""

    weight: float = 3.0

    def apply(self, batch, value):
        return Out(value - self.weight * batch.lengths / batch.limits)
'''

RUNS: dict[str, list[str]] = {
    "healthy": ["method=kimi", "trainer.learning_rate=1e-4", "advantage.group_relative.scale=batch"],
    "pays_brevity": [
        "method=grpo",
        "method.shapers=[{out}/pay_brevity.py:PayBrevity]",
        "trainer.learning_rate=1e-3",
    ],
    "too_fast": ["method=grpo", "trainer.learning_rate=3e-2"],
    "rate_too_small": ["method=kimi", "trainer.learning_rate=1e-9"],
    "too_easy": ["method=grpo", "trainer.temperature=0.3"],
    "cut_off": ["method=grpo", "trainer.max_completion_length=12"],
    "no_second_visit": ["method=hapo", "trainer.learning_rate=1e-5"],
}
"""Name to the overrides of `concise-rl train` that make the run."""

COMMON = [
    "trainer.max_completion_length=128", "trainer.save_strategy=no", "trainer.lr_scheduler_type=constant",
]  # fmt: skip


def make(name: str, folder: Path, steps: int = 16, rows: int = 64) -> Path:
    """Train the run into `folder/name`, without evaluations."""
    from transformers import PrinterCallback

    from concise_rl.commands.config import compose, resolved, trainer_fields
    from concise_rl.commands.train import build_trainer
    from concise_rl.engine.trainer import ConciseConfig
    from concise_rl.model.loading import load_model, load_tokenizer
    from concise_rl.reporting.run_log import RunLog
    from concise_rl.testbeds import ChainSum

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pay_brevity.py").write_text(PAY_BREVITY)
    own = [item.replace("{out}", str(folder)) for item in RUNS[name]]
    run = folder / name
    composed = compose(
        [*COMMON, f"trainer.max_steps={steps}", f"run.dir={run}", f"trainer.per_device_train_batch_size={rows}", *own]
    )
    prompts = ChainSum().load("train")
    if name == "too_easy":
        prompts = [prompt for prompt in prompts if prompt.columns["difficulty"] == 2]
    log = RunLog(run)
    log.truncate_after(0)
    log.write_config(resolved(composed))
    args = ConciseConfig(output_dir=str(run), **trainer_fields(composed))
    model, tokenizer = load_model(composed.model), load_tokenizer(composed.model)
    trainer = build_trainer(composed, args, model, tokenizer, prompts, sinks=[log])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return run


def main() -> None:
    import torch

    from concise_rl.cli import main as concise_rl
    from concise_rl.commands.train import quiet_libraries

    torch.set_num_threads(1)
    quiet_libraries()
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or RUNS:
        run = make(name, folder)
        print(f"\n$ concise-rl diagnose {run}")
        concise_rl(["diagnose", str(run)])


if __name__ == "__main__":
    main()
