"""Train an adapter: only its weights move, and the KL term compares with the model that it was put on."""

import sys

from peft import LoraConfig
from problems import problems
from trl import GRPOConfig

from concise_rl import ConciseTrainer

args = GRPOConfig(
    output_dir="runs/example-lora",
    max_steps=int(sys.argv[1]) if len(sys.argv) > 1 else 4,
    per_device_train_batch_size=16,
    num_generations=8,
    max_completion_length=128,
    learning_rate=1e-3,
    beta=0.01,
    logging_steps=1,
    save_strategy="no",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
)
trainer = ConciseTrainer(
    "embedded:tiny",
    method="kimi",
    args=args,
    train_dataset=problems(),
    peft_config=LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
trainer.train()
trains = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
print(f"{trains} of {sum(p.numel() for p in trainer.model.parameters())} weights train")
for line in trainer.state.log_history:
    if "kl" in line:
        print(f"step {line['step']}: KL to the start {line['kl']:.6f}")
