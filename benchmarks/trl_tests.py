"""Stock TRL's own tests of its GRPO trainer, with this package's trainer in place of it.

    git clone https://github.com/huggingface/trl --branch v1.16.0 /tmp/trl
    python benchmarks/trl_tests.py /tmp/trl                    what differs from stock TRL
    python benchmarks/trl_tests.py /tmp/trl -k "loss_type"     some of the tests

The tests run twice in processes of their own, once as they are and once with `LeanTrainer` and `LeanConfig` under TRL's
names; the command lists every test that passes with the one and not with the other. It fetches nothing: the models that
the tests ask the hub for are tiny random stand-ins with the embedded tokenizer, and the data sets are a few lines. What
needs more than that (processors of images, chat templates of a model) fails alike in both runs, and says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODELS = {
    "tiny-Qwen2ForCausalLM-2.5": "qwen2",
    "tiny-Qwen3ForCausalLM": "qwen3",
    "tiny-Qwen3MoeForCausalLM": "qwen3_moe",
    "tiny-LlamaForCausalLM-3.2": "llama",
    "tiny-MistralForCausalLM-0.2": "mistral",
    "tiny-Cohere2ForCausalLM": "cohere2",
    "tiny-Gemma2ForCausalLM": "gemma2",
    "tiny-Glm4MoeForCausalLM": "glm4_moe",
    "tiny-GptOssForCausalLM": "gpt_oss",
    "tiny-Qwen2ForSequenceClassification-2.5": "qwen2",
    "tiny-Qwen3ForSequenceClassification": "qwen3",
    "tiny-LlamaForSequenceClassification-3.2": "llama",
}
OWNER = "trl-internal-testing"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
LINES = [
    "1+2+3",
    "4+4",
    "7+1+1",
    "2+2",
    "9+1",
    "3+5+1",
    "6+2",
    "8+1",
    "5+5",
    "1+1",
    "2+7",
    "3+3",
    "4+1",
    "6+3",
    "2+5",
    "1+8",
]


def make_models(cache: Path) -> None:
    """Stand-ins where the hub's cache would hold what it had downloaded."""
    from architectures import tiny_config
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from concise_rl.assets import TINY

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.chat_template = TEMPLATE
    for name, model_type in MODELS.items():
        entry = cache / f"models--{OWNER}--{name}"
        folder = entry / "snapshots" / "0"
        (entry / "refs").mkdir(parents=True)
        (entry / "refs" / "main").write_text("0")
        config = tiny_config(model_type)
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        config.num_labels = 1
        kind = AutoModelForSequenceClassification if "SequenceClassification" in name else AutoModelForCausalLM
        kind.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def load_dataset(path: str, name: str | None = None, split: str | None = None, **_: Any) -> Any:
    """In place of `datasets.load_dataset`: prompts as text or as conversations, a split or all."""
    from datasets import Dataset, DatasetDict, IterableDatasetDict

    if path != f"{OWNER}/zen" or name not in ("standard_prompt_only", "conversational_prompt_only"):
        raise FileNotFoundError(f"no stand-in for {path} {name}")
    prompts = LINES if name.startswith("standard") else [[{"role": "user", "content": line}] for line in LINES]
    parts = {"train": Dataset.from_dict({"prompt": prompts}), "test": Dataset.from_dict({"prompt": prompts[:4]})}
    if _.get("streaming"):
        streams = {key: part.to_iterable_dataset() for key, part in parts.items()}
        return streams[split] if split else IterableDatasetDict(streams)
    return parts[split] if split else DatasetDict(parts)


class Outcomes:
    """A pytest plugin: what became of each test."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = "" if report.passed else " ".join(str(getattr(crash, "message", report.longrepr)).split())
            self.of[report.nodeid.partition("::")[2]] = [report.outcome, reason]


def run_tests(checkout: Path, lean: bool, out: Path, chosen: str) -> None:
    """In a process of its own: the tests, with TRL's names pointing at this package's trainer where asked."""
    import datasets
    import pytest
    import torch
    import trl

    from concise_rl.engine.lean import LeanConfig, LeanTrainer

    torch.set_num_threads(1)
    datasets.load_dataset = load_dataset
    if lean:
        trl.GRPOTrainer, trl.GRPOConfig = LeanTrainer, LeanConfig
    outcomes = Outcomes()
    os.chdir(checkout)
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "-W", "ignore", "-k", chosen]
    pytest.main([str(checkout / "tests" / "test_grpo_trainer.py"), *options], plugins=[outcomes])
    out.write_text(json.dumps(outcomes.of))


def outcomes_of(checkout: Path, lean: bool, cache: Path, chosen: str) -> dict[str, list[str]]:
    out = cache.parent / ("lean.json" if lean else "stock.json")
    offline = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, str(checkout), "-k", chosen, "--inner", "lean" if lean else "stock", str(out)]
    subprocess.run(command, env=os.environ | offline, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a folder with TRL's repository")
    parser.add_argument("-k", default="TestGRPOTrainer", help="which tests, as pytest says it")
    parser.add_argument("--inner", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner:
        return run_tests(given.checkout, given.inner[0] == "lean", Path(given.inner[1]), given.k)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "hub"
        make_models(cache)
        stock, lean = (outcomes_of(given.checkout.resolve(), which, cache, given.k) for which in (False, True))
    both = [name for name in stock if stock[name][0] == lean.get(name, [""])[0]]
    passed = sum(stock[name][0] == "passed" for name in both)
    neither, differing = len(both) - passed, len(stock) - len(both)
    print(f"{len(stock)} tests: {passed} pass with both, {neither} with neither, {differing} differ")
    for name in sorted(stock.keys() - set(both)):
        print(f"  {name}: stock {stock[name][0]} {stock[name][1][:160]}")
        print(f"      here {' '.join(lean.get(name, ['missing', '']))[:300]}")
    return sys.exit(any(outcome[0] == "passed" != lean.get(name, [""])[0] for name, outcome in stock.items()))


if __name__ == "__main__":
    main()
