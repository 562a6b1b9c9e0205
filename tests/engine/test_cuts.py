"""A cut in the trainer: cut rows are judged again, scored and trained as they are left, on any ranks."""

from __future__ import annotations

import pytest
import torch

from concise_rl.errors import UserError
from concise_rl.methods import Cut
from concise_rl.methods.method import Method

from .ranks import launch, read_steps
from .scripted import right, scripted

RULES = ("method=dot", "cut.dot.alpha=1", "cut.dot.margin=1", "trainer.max_completion_length=160")


def one_runs_on(question: str, g: int, step: int) -> tuple[str, bool]:
    return right(question, checks=4 if g == 1 else 0), True


def test_cut_rows_are_judged_again_and_train_as_they_are_left(make_trainer, monkeypatch):
    trainer, seen = make_trainer(*RULES, "trainer.max_steps=1", kind=scripted(one_runs_on))
    written = []
    write = trainer._write

    def keep(output, *rest):
        write(output, *rest)
        written.append({name: output[name].clone() for name in ("completion_ids", "completion_mask", "advantages")})

    monkeypatch.setattr(trainer, "_write", keep)
    trainer.train()
    record, metrics = seen.records[0], seen.metrics[0]
    batch = record.batch
    lengths_PG, sampled_PG = batch.by_group(batch.lengths), batch.by_group(batch.costs["sampled_tokens"])
    for p in range(batch.n_prompts):
        sampled = sampled_PG[p]
        threshold = int(sampled.mean() + sampled.std())
        assert lengths_PG[p].tolist() == [int(sampled[0]), threshold, int(sampled[2]), int(sampled[3])]
    assert record.finishes == ["eos", "cut", "eos", "eos"] * 4
    assert metrics["cut_frac"] == 0.25
    assert batch.correct.tolist() == [True, False, True, True] * 4, "what is left has no answer"
    assert batch.truncated.tolist() == [False, True, False, False] * 4
    assert torch.equal(batch.limits[1::4], batch.lengths[1::4])
    assert bool((record.credit[1::4] < 0).all())
    assert written[0]["completion_mask"].sum(dim=1).tolist() == batch.lengths.tolist()
    texts = [
        trainer._tokenizer.decode(ids[mask.bool()]).removesuffix(trainer._tokenizer.eos_token)
        for ids, mask in zip(written[0]["completion_ids"], written[0]["completion_mask"], strict=True)
    ]
    assert texts == record.completions, "what is logged, judged and trained is one text"


def test_groups_that_cutting_gave_variance_are_not_refilled(make_trainer):
    trainer, seen = make_trainer(*RULES, "zero_variance=refill", kind=scripted(one_runs_on))
    trainer.train()
    assert [line["refilled_groups_frac"] for line in seen.metrics] == [0, 0]
    assert all("cut" in record.finishes for record in seen.records)


def test_evaluation_cuts_nothing(make_trainer):
    trainer, _ = make_trainer(*RULES, "trainer.max_steps=1", kind=scripted(one_runs_on))
    trainer.train()
    trainer.args.per_device_eval_batch_size = 8
    trainer.num_generations_eval = 4
    found = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert found["eval_accuracy"] == 1
    assert found["eval_cut_frac"] == 0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["method=dot"], r"OutlierCut\.alpha=3\.0: of trainer\.num_generations=4 .* sample 11 or more"),
        ([*RULES, "truncated=mask"], r"truncated=mask leaves the rows that OutlierCut cuts out of the loss"),
    ],
)
def test_a_cut_that_cannot_teach_is_refused(make_trainer, rules, message):
    with pytest.raises(UserError, match=message):
        make_trainer(*rules)


def test_a_strangers_cut_is_refused_by_name(make_trainer):
    class Odd(Cut):
        def __call__(self, batch):
            return batch.lengths + 1

    trainer, _ = make_trainer("method=grpo", "trainer.max_steps=1")
    trainer.method = Method("odd", {"cut.Odd": Odd(), **trainer.method.components})
    with pytest.raises(ValueError, match=r"Odd keeps \d+ tokens of row 0, which has \d+: a cut keeps from 1 token"):
        trainer.train()


def test_two_processes_cut_as_one_does(tmp_path):
    few = ("trainer.max_steps=2", "trainer.save_steps=2", "cut.dot.alpha=1", "cut.dot.margin=1")
    for layout in ("one", "ddp"):
        launch(tmp_path / layout, layout, "dot", *few)
    one, two = read_steps(tmp_path / "one"), read_steps(tmp_path / "ddp")
    assert one == two
    assert {"cut", "eos"} == {finish for step in one for finish in step["finishes"]}
