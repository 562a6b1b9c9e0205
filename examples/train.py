"""Train on a plain data set: `python examples/train.py 8` takes 8 steps of the embedded model on a CPU."""

import sys

from problems import problems
from trl import GRPOConfig

from concise_rl import ConciseTrainer, load_method

args = GRPOConfig(
    output_dir="runs/example-train",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 8,
    per_device_train_batch_size=32,
    num_generations=8,
    max_completion_length=128,
    learning_rate=1e-4,
    logging_steps=1,
    save_strategy="no",
    use_cpu=True,  # these three are for the embedded model on a CPU; leave them out on a GPU
    bf16=False,
    gradient_checkpointing=False,
)
trainer = ConciseTrainer(
    "embedded:tiny",  # or a hub id, or a folder
    method=load_method("kimi"),
    args=args,
    train_dataset=problems(),
)
trainer.train()
for line in trainer.state.log_history:
    if "mean_tokens" in line:
        print(f"step {line['step']}: {line['accuracy']:.0%} right at {line['mean_tokens']:.1f} tokens")
