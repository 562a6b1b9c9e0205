"""The samplers of the package in the trainer: what is refused at start, and what of a closed thought trains."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from concise_rl.errors import UserError
from concise_rl.evaluation import Mode, evaluate
from concise_rl.methods import load_method
from concise_rl.testbeds import ChainSum
from concise_rl.verifiers import FinalNumber


def test_a_tokenizer_without_the_tag_is_refused_at_start(make_trainer):
    with pytest.raises(UserError, match="no single token 'nowhere'"):
        make_trainer("method=thinking_budget", "model.think_end=nowhere")


def test_a_budget_that_leaves_no_answer_is_refused_at_start(make_trainer):
    with pytest.raises(UserError, match="budget=48: a thought may take 48 of"):
        make_trainer("method=thinking_budget", "sampler.thinking_budget.budget=48")


def test_closed_thoughts_count_and_train_what_was_sampled(make_trainer, monkeypatch):
    trainer, seen = make_trainer(
        "method=thinking_budget", "sampler.thinking_budget.budget=10", "sampler.thinking_budget.words=So",
        "trainer.max_steps=1",
    )  # fmt: skip
    masks = []
    write = trainer._write

    def keep(output, *rest):
        masks.append((output["completion_mask"] * output["tool_mask"]).sum(dim=1).tolist())
        write(output, *rest)

    monkeypatch.setattr(trainer, "_write", keep)
    trainer.train()
    record = seen.records[0]
    closed = [n for n, finish in enumerate(record.finishes) if finish == "budget"]
    assert closed
    assert all("So</think>" in record.completions[n] for n in closed)
    assert record.batch.think_lengths[closed].tolist() == [10] * len(closed)
    assert not any("So" in text for n, text in enumerate(record.completions) if n not in closed)
    assert masks[0] == record.batch.lengths.tolist()
    assert record.batch.lengths.max() <= 48


def test_a_forced_evaluation_asks_as_a_thinking_budget_trains(make_trainer):
    trainer, seen = make_trainer(
        "method=thinking_budget", "sampler.thinking_budget.budget=30", "trainer.top_k=1", "trainer.max_steps=1",
        "trainer.learning_rate=0",
    )  # fmt: skip
    trainer.train()
    record = seen.records[0]
    drawn = set(record.batch.prompt_keys)
    prompts = [prompt for prompt in ChainSum().load("train") if prompt.id in drawn]
    evaluation = evaluate(
        trainer.model, trainer.processing_class, prompts, FinalNumber(),
        max_new_tokens=48, temperature=0, seed=0, mode=Mode.forced(30),
    )  # fmt: skip
    asked = {row.prompt_id: row.completion for row in evaluation.rows}
    keys = [key for key in record.batch.prompt_keys for _ in range(record.batch.group_size)]
    rows = list(zip(record.completions, record.finishes, keys, strict=True))
    assert "budget" in {finish for _, finish, _ in rows}
    assert [text for text, _, _ in rows] == [asked[key] for _, _, key in rows]


def test_the_limits_of_a_run_follow_its_stages(make_trainer):
    trainer, seen = make_trainer("method=length_stages", "trainer.max_completion_length={stages: [[0, 40], [1, 12]]}")
    trainer.train()
    assert [set(record.batch.limits.tolist()) for record in seen.records] == [{40}, {12}]
    assert [int(record.batch.lengths.max()) for record in seen.records] == [40, 12]
    cut = seen.records[1].batch.truncated
    assert bool(cut.any()), "what does not fit is cut off"
    assert not seen.records[1].batch.correct[cut].any()


def test_the_first_token_of_adaptthink_is_trained_against_its_draw(make_trainer, monkeypatch):
    trainer, _ = make_trainer(
        "method=adaptthink", "sampler.adaptthink.think_start='<think>'", "sampler.adaptthink.share=0.25",
        "trainer.max_steps=1",
    )  # fmt: skip
    written = []
    write = trainer._write

    def keep(output, *rest):
        write(output, *rest)
        written.append({name: output[name].clone() for name in ("old_per_token_logps", "tool_mask", "completion_ids")})

    monkeypatch.setattr(trainer, "_write", keep)
    trainer.train()
    (output,) = written
    first = output["old_per_token_logps"][:, 0].tolist()
    assert first == pytest.approx([math.log(0.25), *[math.log(0.75)] * 3] * 4)
    assert output["tool_mask"][:, 0].tolist() == [1] * 16
    end = trainer.vocabulary.think_end_id
    assert (output["completion_ids"][:, 0] == end).tolist() == [True, False, False, False] * 4


@pytest.mark.parametrize("sampler", ["exits", "jet", "brpo"])
def test_a_prefix_of_several_rows_is_trained_once(make_trainer, monkeypatch, sampler):
    fields = ("sampler.brpo.A=1",) if sampler == "brpo" else ()
    trainer, seen = make_trainer("method=grpo", f"method.sampler={sampler}", "trainer.max_steps=1", *fields)
    written = []
    write = trainer._write

    def keep(output, *rest):
        write(output, *rest)
        written.append((output["completion_ids"], output["completion_mask"] * output["tool_mask"]))

    monkeypatch.setattr(trainer, "_write", keep)
    trainer.train()
    ((ids, mask),) = written
    thoughts = seen.records[0].batch.think_lengths.tolist()
    whole = 2 if sampler == "jet" else 1
    for first in range(0, 16, 4 // whole):
        rows = range(first, first + 4 // whole)
        longest = max(rows, key=lambda row: thoughts[row])
        for place in range(thoughts[longest]):
            holders = [row for row in rows if thoughts[row] > place]
            assert len({tuple(ids[row, : place + 1].tolist()) for row in holders}) == 1
            assert int(mask[holders, place].sum()) == 1


@pytest.mark.parametrize("method", ["brpo", "hbpo", "adaptthink"])
def test_what_a_sampler_gives_no_verifier_is_asked_for(method, tmp_path):
    own = load_method(method)
    wanted = {need for need in own.needs if need.startswith("parts.")}
    assert wanted
    assert wanted <= own.sampler.gives
    done = subprocess.run(
        [
            sys.executable, "-m", "concise_rl.cli", "train", f"method={method}", "trainer.max_steps=1",
            "trainer.per_device_train_batch_size=8", "trainer.max_completion_length=48", "trainer.save_strategy=no",
            "evaluation.problems=0", "run.progress=false", f"run.dir={tmp_path / 'run'}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
