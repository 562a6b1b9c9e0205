"""Tokens that the policy did not sample are no length, no entropy and no loss; limits follow their schedule."""

from __future__ import annotations

import pytest
import torch

from concise_rl.engine.rows import costs_of
from concise_rl.methods import load_method
from concise_rl.testbeds.chain_sum import answer, running_sum

ROOMY = "trainer.max_completion_length=160"
TOOL = "9+9=18;"
"""What the environment says in the middle of a completion; its answer would be wrong."""


def with_environment(trainer_prompts, trainer):
    """TRL's `rollout_func`: thought, the environment's words (mask 0), the policy's answer."""
    tokenizer = trainer._tokenizer
    prompt_ids, completion_ids, masks = [], [], []
    for prompt in trainer_prompts:
        prompt_ids.append(tokenizer(prompt)["input_ids"])
        pieces = [(f"<think>{running_sum(prompt)}", 1), (TOOL, 0), (f"</think>{answer(prompt)}", 1)]
        ids = [(token, own) for text, own in pieces for token in tokenizer(text)["input_ids"]]
        ids.append((tokenizer.eos_token_id, 1))
        completion_ids.append([token for token, _ in ids])
        masks.append([own for _, own in ids])
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": None, "env_mask": masks}


def test_words_of_an_environment_are_no_length_and_no_loss(make_trainer):
    trainer, seen = make_trainer("method=canon_entropy", ROOMY, "trainer.max_steps=1")
    trainer.rollout_func = with_environment
    trainer.train()
    (record,) = seen.records
    batch, tokenizer = record.batch, trainer._tokenizer
    inserted = len(tokenizer(TOOL)["input_ids"])
    for n, text in enumerate(record.completions):
        question = record.prompts[n // 4]
        own = len(tokenizer(f"<think>{running_sum(question)}</think>{answer(question)}")["input_ids"]) + 1
        assert TOOL not in text, "the verifier reads what the policy wrote"
        assert int(batch.lengths[n]) == own
        assert int(batch.think_lengths[n]) == len(tokenizer(f"<think>{running_sum(question)}")["input_ids"])
        assert batch.costs["turns"][n] == 2
        assert batch.costs["context_tokens"][n] == len(tokenizer(question)["input_ids"]) + inserted
    assert batch.correct.all()
    (buffered,) = trainer._buffered_inputs
    trained = (buffered["completion_mask"] * buffered["tool_mask"]).sum(dim=1)
    assert sorted(trained.tolist()) == sorted(batch.lengths.tolist())


def test_turns_and_context_are_counted():
    assert costs_of(5, [True, True, False, False, True, False, True]) == {"turns": 3.0, "context_tokens": 8.0}
    assert costs_of(5, [False, False]) == {"turns": 1.0, "context_tokens": 7.0}


def test_a_scheduled_limit_reaches_the_sampler_and_the_batch(make_trainer):
    limit = "trainer.max_completion_length={stages: [[0, 40], [1, 12]]}"
    trainer, seen = make_trainer("method=grpo", limit, "trainer.max_steps=2")
    assert trainer.args.max_completion_length == 40
    trainer.train()
    assert [set(record.batch.limits.tolist()) for record in seen.records] == [{40}, {12}]
    assert int(seen.records[1].batch.lengths.max()) == 12
    assert trainer.max_completion_length == 40


def test_a_scheduled_coefficient_is_that_of_its_step(make_trainer):
    weight = "shaper.kimi_length.weight={linear: {start: 0, end: 1, steps: 2}}"
    trainer, seen = make_trainer("method=kimi", weight, "trainer.max_steps=2")
    trainer.train()
    for record, expected in zip(seen.records, (0.0, 0.5), strict=True):
        result, _ = load_method("kimi", weight=expected).apply(record.batch, {})
        assert torch.equal(result.reward, record.reward)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shaper.kimi_length.weight={cosin: {start: 0, end: 1, steps: 2}}", "did you mean cosine"),
        ("shaper.kimi_length.weight={cosine: {start: 0, steps: 2}}", "missing 1 required"),
        ("shaper.kimi_length.warmup_steps={linear: {start: 0, end: 1, steps: 2}}", "only a number takes a schedule"),
        ("shaper.kimi_length.weight={linear: {start: -1, end: 1, steps: 2}}", r"KimiLength\.weight=-1"),
    ],
)
def test_a_bad_schedule_is_refused_before_a_model_loads(override, message):
    from concise_rl.commands.config import compose, method_of

    with pytest.raises(ValueError, match=message):
        method_of(compose(["method=kimi", override]))


def test_a_later_turn_near_the_context_limit_ends_cleanly(make_trainer):
    trainer, _ = make_trainer("method=grpo", "trainer.max_completion_length=48")
    context = trainer.model.config.max_position_embeddings
    (token,) = trainer._tokenizer("7")["input_ids"]
    prompts = [[token] * (context - 5), [token] * 9, [token] * (context - 1)]
    sampled, _ = trainer._generate_single_turn(prompts, None, {}, num_generations=1, has_tool_images=False)
    assert [len(ids) <= room for ids, room in zip(sampled, (5, 48, 1), strict=True)] == [True] * 3
    with pytest.raises(ValueError, match="max_position_embeddings"):
        trainer._generate_single_turn(prompts, None, {}, 4)
