"""One of two ranks, each with a vLLM of its own; run by test_ranks.py. Writes what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from trl.generation import vllm_generation

from concise_rl.commands.config import compose, trainer_fields
from concise_rl.commands.train import build_trainer
from concise_rl.engine import checkpoint
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.testbeds import ChainSum
from tests.engine.conftest import SMALL, Recorder
from tests.vllm.conftest import COLOCATED, Watched, colocated


def main() -> None:
    out, *overrides = sys.argv[1:]
    torch.set_num_threads(1)
    vllm_generation.LLM = colocated()
    composed = compose([*SMALL, *COLOCATED, *overrides])
    model, tokenizer, seen = load_model(composed.model), load_tokenizer(composed.model), Recorder()
    args = ConciseConfig(output_dir=out, **trainer_fields(composed))
    Watched.written = []
    trainer = build_trainer(
        composed, args, model, tokenizer, ChainSum().load("train"), kind=Watched, sinks=[seen]
    )  # fmt: skip
    trainer.train()
    found = {
        "gaps": trainer.gaps(),
        "weights": float(sum(p.double().abs().sum() for p in trainer.model.parameters())),
        "own": [output["completion_ids"].tolist() for output in trainer.written],
        "prompts": [list(record.batch.prompt_keys) for record in seen.records],
    }
    folder = Path(out) / f"rank{PartialState().process_index}"
    folder.mkdir()
    checkpoint.save_state(folder, trainer.states, {})
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
