"""Tuning on rows: refusals, tokens as the policy saw them, a run that goes on after a kill, O1-Pruner's loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from concise_rl.commands.config import compose
from concise_rl.errors import DataError, UserError
from concise_rl.model.loading import load_model, load_tokenizer
from concise_rl.offline.report import report_path
from concise_rl.offline.rows import read_rows, tokenised
from concise_rl.offline.trainers import TUNERS

SUMS = [(a, b) for a in range(1, 5) for b in (1, 4)]
ROWS = [{"prompt": f"{a}a+{b}=", "completion": f"<think>{a}a+{b}={a + b}</think>{a + b}"} for a, b in SUMS]
PAIRS = [
    {"prompt": r["prompt"], "chosen": r["completion"], "rejected": r["completion"].replace("</think>", ";</think>")}
    | {"chosen_truncated": False, "rejected_truncated": False}
    for r in ROWS
]


def trainer(recipe: str, folder: Path, rows: list, steps: int = 4):
    spec = compose([]).model
    torch.manual_seed(0)
    model, tokenizer = load_model(spec), load_tokenizer(spec)
    kind, config = TUNERS[recipe]
    args = config(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-3, max_length=None,
        use_cpu=True, bf16=False, report_to="none", save_steps=2, logging_steps=1, disable_tqdm=True, seed=3,
        gradient_checkpointing=False,
        **({"loss_type": "simpo", "cpo_alpha": 0.0} if recipe == "simpo" else {}),
    )  # fmt: skip
    made = tokenised(rows, tokenizer, context=None, path="rows")
    return kind(model, args=args, train_dataset=Dataset.from_list(made), processing_class=tokenizer)


def rows_of(recipe: str) -> list:
    if recipe in ("dpo", "simpo"):
        return PAIRS
    checked = [row | {"truncated": False} for row in ROWS]
    return [row | {"weight": 1.0 - n % 3} for n, row in enumerate(checked)] if recipe == "weighted" else checked


def test_a_completion_ends_with_eos_unless_its_limit_cut_it_off():
    tokenizer = load_tokenizer(compose([]).model)
    whole, cut = tokenised(
        [ROWS[0] | {"truncated": False}, ROWS[0] | {"truncated": True}], tokenizer, context=None, path="rows"
    )
    assert whole["input_ids"][:-1] == cut["input_ids"]
    assert whole["input_ids"][-1] == tokenizer.eos_token_id
    assert sum(whole["completion_mask"]) == len(whole["input_ids"]) - len(tokenizer(ROWS[0]["prompt"])["input_ids"])
    (pair,) = tokenised([PAIRS[0] | {"rejected_truncated": True}], tokenizer, context=None, path="rows")
    assert pair["chosen_ids"][-1] == tokenizer.eos_token_id != pair["rejected_ids"][-1]
    with pytest.raises(DataError, match=r"row 0 takes \d+ tokens, the model's context is 9"):
        tokenised([ROWS[0] | {"truncated": False}], tokenizer, context=9, path="rows")


@pytest.mark.parametrize("recipe", TUNERS)
def test_a_run_that_goes_on_is_the_run_that_never_stopped(recipe, tmp_path):
    whole = trainer(recipe, tmp_path / "whole", rows_of(recipe))
    start = {name: weight.clone() for name, weight in whole.model.state_dict().items()}
    whole.train()
    assert any(not torch.equal(weight, start[name]) for name, weight in whole.model.state_dict().items())
    resumed = trainer(recipe, tmp_path / "resumed", rows_of(recipe))
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


@pytest.mark.parametrize("recipe", ["sft", "weighted"])
def test_prompts_are_read_and_not_learnt(recipe, tmp_path):
    made = trainer(recipe, tmp_path, rows_of(recipe))
    rows = [made.train_dataset[n] for n in range(len(ROWS))]
    for labels, row in zip(made.data_collator(rows)["labels"].tolist(), ROWS, strict=True):
        ids = [*made.processing_class.encode(row["completion"]), made.processing_class.eos_token_id]
        assert [label for label in labels if label != -100] == ids


def test_simpo_learns_from_whole_answers_and_counts_their_tokens(tmp_path):
    """TRL's own trainer cuts rows at 512 tokens where `max_length` is null."""
    pairs = [pair | {"chosen": "1+" * 400 + pair["chosen"]} for pair in PAIRS]
    made = trainer("simpo", tmp_path, pairs, steps=2)
    rows = [made.train_dataset[n] for n in range(len(pairs))]
    for labels, pair in zip(made.data_collator(rows)["chosen_labels"].tolist(), pairs, strict=True):
        ids = [*made.processing_class.encode(pair["chosen"]), made.processing_class.eos_token_id]
        assert [label for label in labels if label != -100] == ids
    made.train()
    lengths = [len(row["chosen_input_ids"]) + len(row["rejected_input_ids"]) for row in rows]
    assert made.state.log_history[-2]["num_tokens"] == sum(lengths)  # two steps of four: each pair once


def test_other_rows_are_another_run(tmp_path):
    first = trainer("sft", tmp_path, rows_of("sft"), steps=2)
    first.rows = "one"
    first.train()
    other = trainer("sft", tmp_path, rows_of("sft"))
    other.rows = "two"
    with pytest.raises(UserError, match="was tuned with rows=one, now rows=two"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_o1_pruners_loss_by_hand(tmp_path):
    """At the start every ratio is 1 and the loss minus the mean weight; its gradient is that of weighted log-probs."""
    made = trainer("weighted", tmp_path, rows_of("weighted")[:4])
    batch = dict(made.data_collator([made.train_dataset[n] for n in range(4)]))
    weights = batch["weight"].clone()
    assert weights.tolist() == [1.0, 0.0, -1.0, 1.0]
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    loss = made.compute_loss(made.model, dict(batch))
    assert loss.item() == pytest.approx(-weights.mean().item(), abs=1e-5)
    loss.backward()
    gradient = made.model.model.norm.weight.grad.clone()
    made.model.zero_grad()
    rest = {name: value for name, value in batch.items() if name not in ("weight", "start_logprob")}
    (-(made._row_logprobs(made.model, rest) * weights).mean()).backward()
    torch.testing.assert_close(gradient, made.model.model.norm.weight.grad, rtol=1e-4, atol=1e-7)


def test_rows_that_cannot_be_tuned_on_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert len(read_rows(path, "sft")) == len(ROWS)
    with pytest.raises(DataError, match=r"line 1: recipe=dpo needs prompt, chosen, rejected, the row has prompt, comp"):
        read_rows(path, "dpo")
    with pytest.raises(DataError, match=r"recipe=weighted needs .*concise-rl select selector=o1_pruner"):
        read_rows(path, "weighted")
    report_path(path).write_text(json.dumps({"sha256": "0"}))
    with pytest.raises(UserError, match="is not what concise-rl select wrote"):
        read_rows(path, "sft")
    report_path(path).unlink()
    for row, message in (
        ({"prompt": "a", "completion": ""}, "completion is ''"),
        ({"prompt": 3, "completion": "b"}, "prompt is 3; it must be a str"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the same text"),
    ):
        path.write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=message):
            read_rows(path, "dpo" if "chosen" in row else "sft")
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_rows(path, "sft")
    with pytest.raises(UserError, match="there is no such file; make one with concise-rl select"):
        read_rows(tmp_path / "nowhere.jsonl", "sft")
