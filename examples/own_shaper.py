"""A shaper of your own, tried on a batch by hand, then trained with: a dataclass with `apply`."""

import sys
from dataclasses import dataclass

from problems import problems
from trl import GRPOConfig

from concise_rl import ConciseTrainer, GroupRelative, Out, RolloutBatch, Shaper
from concise_rl.methods.recipes import as_method


@dataclass
class Budget(Shaper):
    """Right answers lose `weight` for each multiple of `target` tokens beyond it."""

    target: int = 30
    weight: float = 0.5

    def apply(self, batch, value):
        excess_N = (batch.lengths - self.target).clamp(min=0) / self.target
        return Out(value - self.weight * excess_N * batch.correct * batch.counts)


method = as_method([Budget(target=30), GroupRelative(scale="batch")])
batch = RolloutBatch.of(prompt_keys=["a"], group_size=4, lengths=[30, 60, 45, 90], correct=[1, 1, 0, 1])
result, _ = method.apply(batch, method.init())
print("rewards:", result.reward.tolist())
print("credit: ", [round(credit, 2) for credit in result.credit.tolist()])

args = GRPOConfig(
    output_dir="runs/example-own",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 8,
    per_device_train_batch_size=32,
    num_generations=8,
    max_completion_length=128,
    learning_rate=1e-4,
    logging_steps=1,
    save_strategy="no",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
)
trainer = ConciseTrainer("embedded:tiny", method=method, args=args, train_dataset=problems())
trainer.train()
first, *_, last = [line for line in trainer.state.log_history if "mean_tokens" in line]
print(f"tokens {first['mean_tokens']:.1f} -> {last['mean_tokens']:.1f}")
