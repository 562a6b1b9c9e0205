"""A head whose weight is sharded over two processes: one update with our log-probs against TRL's head.

    python benchmarks/sharded_head.py                # the table of docs/kernels.md: some minutes

Two gloo processes under the project's own ZeRO-3 and FSDP2 recipes train a random Llama (two layers, hidden size 256,
vocabulary 49,152) on the same scripted completions, in a process group of its own for each head and layout. Measured is
the second optimizer step, without sampling: the peak of resident memory of a rank beyond what it held before, and its
processor seconds. `logits` is what all logits of a rank's micro-batch would take in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).parent.parent
HEADS, LAYOUTS = ("trl", "concise_rl"), ("zero3", "fsdp2")
ROWS, TOKENS, VOCABULARY, HIDDEN = 16, 128, 49152, 256
LOGITS_MB = ROWS * TOKENS * VOCABULARY * 4 / 2**20


def build(head: str, folder: Path) -> Any:
    """A trainer on scripted completions that scores through one of the heads, and measures its steps."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from concise_rl.assets import TINY
    from concise_rl.engine.lean import LeanConfig, LeanTrainer

    class Measured(LeanTrainer):
        found: dict[str, float]

        def _generate_single_turn(self, prompt_ids, *rest):
            rng = torch.Generator().manual_seed(self.state.global_step * 2 + self.accelerator.process_index)
            return [torch.randint(5, VOCABULARY, (TOKENS,), generator=rng).tolist() for _ in prompt_ids], None

        def _step_loss(self, model, rows):
            Path("/proc/self/clear_refs").write_text("5")
            start, before = memory_mb("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
            loss = super()._step_loss(model, rows)
            after = resource.getrusage(resource.RUSAGE_SELF)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            self.found = {"peak_mb": memory_mb("VmHWM") - start, "cpu_seconds": spent}
            return loss

    def reward(completion_ids, **_):
        return [float(ids[0] % 7) for ids in completion_ids]

    # After the trainer's arguments, which tell transformers how weights are sharded as they are made.
    arguments = LeanConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        per_device_train_batch_size=ROWS, num_generations=8, max_completion_length=TOKENS, max_steps=2,
        save_strategy="no", logging_steps=1, max_tokens_per_microbatch=2**20, learning_rate=1e-5, loss_type="grpo",
    )  # fmt: skip
    shard_on_cpu()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=512, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=256, tie_word_embeddings=False,
        )
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(TINY, padding_side="left")
    prompts = Dataset.from_list([{"prompt": f"{n}a+{n}b"} for n in range(1, 9)])
    trainer = Measured(
        model=model, reward_funcs=[reward], args=arguments, train_dataset=prompts, processing_class=tokenizer
    )
    trainer._through_trl = head == "trl"
    return trainer


def shard_on_cpu() -> None:
    """Accelerate shards on accelerators alone: it would take a CPU's processes for plain DDP and leave FSDP out."""
    from accelerate import DistributedType, PartialState

    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def measure(head: str, folder: Path) -> None:
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # its collectives would compile for a minute
    torch.set_num_threads(1)
    trainer = build(head, folder)
    trainer.train()
    trainer.found["grad_norm"] = [log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log][-1]
    (folder / f"{trainer.accelerator.process_index}.json").write_text(json.dumps(trainer.found))


def run(layout: str, head: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = yaml.safe_load((ROOT / "launch" / "accelerate" / f"{layout}.yaml").read_text())
        config = folder / "accelerate.yaml"
        config.write_text(yaml.safe_dump(recipe | {"num_processes": 2, "use_cpu": True, "mixed_precision": "no"}))
        command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file", str(config)]
        command += ["--main_process_port", "0", __file__, "--child", head, name]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{head} under {layout}: {done.stderr[-6000:]}")
        ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return {key: max(rank[key] for rank in ranks) for key in ranks[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("HEAD", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments.child[0], Path(arguments.child[1]))
        return
    print(f"{ROWS} rows x {TOKENS} tokens a rank, H={HIDDEN}, V={VOCABULARY}, logits {LOGITS_MB:.0f} MB\n")
    print("| layout | head | peak MB | processor s | / TRL | gradient norm |\n|---|---|---:|---:|---:|---:|")
    for layout in LAYOUTS:
        runs: dict[str, list[dict[str, float]]] = {head: [] for head in HEADS}
        for repeat in range(arguments.repeats):
            for head in HEADS if repeat % 2 == 0 else reversed(HEADS):
                runs[head].append(run(layout, head))
        medians = {h: {k: statistics.median(one[k] for one in some) for k in some[0]} for h, some in runs.items()}
        for head, row in medians.items():
            ratio = row["cpu_seconds"] / medians["trl"]["cpu_seconds"]
            print(
                f"| `{layout}` | {head} | {row['peak_mb']:.0f} | {row['cpu_seconds']:.1f} | {ratio:.2f} "
                f"| {row['grad_norm']:.6f} |"
            )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
