"""The reasoner that reads efforts: how its teacher writes, and that more effort is more tokens and fewer errors."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from concise_rl.assets import REASONERS
from concise_rl.data.efforts import WORDS, Level
from concise_rl.evaluation import evaluate
from concise_rl.methods.edits.effort import PromptEffort
from concise_rl.testbeds import RunningTotal
from concise_rl.testbeds.laws import load_checkpoint
from concise_rl.testbeds.running_total import Merging, completion, totals
from concise_rl.testbeds.splits import split_of
from concise_rl.testbeds.teacher import AtEfforts
from concise_rl.verifiers import Exact


def test_each_level_is_asked_in_its_words_and_answered_by_its_own_teacher():
    direct, every = Merging(levels=(1, 2), jump_weights=(1e-9, 1)), Merging(levels=(2,), jump_weights=(1,))
    teacher = AtEfforts({Level.low: direct, Level.high: every})
    traces = list(islice(teacher.traces(1000, random.Random(0)), 1000))
    low = [(asked.removesuffix(WORDS[Level.low]), text) for asked, text in traces if asked.endswith(WORDS[Level.low])]
    high = [trace for trace in traces if trace[0].endswith("=")]
    assert len(low) + len(high) == 1000
    assert 0.45 < len(low) / 1000 < 0.55
    for question, text in low:
        assert split_of(question) == "train"
        assert text == completion(question, (len(totals(question)) - 1,))
    for question, text in high:
        assert split_of(question) == "train"
        assert text == completion(question, (1, 1))


def test_the_shipped_reasoner_takes_more_tokens_and_is_right_oftener_at_each_higher_effort():
    """128 problems: 65, 85, 98 % at 6.7, 12.1, 14.4 tokens. Greedy, medium would write every total, as high does."""
    model, tokenizer = load_checkpoint(REASONERS["tiny_efforts"])
    prompts = RunningTotal(test_size=128).load("test")
    found = [
        evaluate(
            model, tokenizer, prompts, Exact(), edit=PromptEffort(level, share=1.0), max_new_tokens=64, temperature=1,
            seed=0,
        ).summary()
        for level in Level
    ]  # fmt: skip
    assert found[-1]["accuracy"] > 0.95
    for lesser, greater in pairwise(found):
        assert greater["accuracy"] > lesser["accuracy"] + 0.04
        assert greater["mean_tokens"] > lesser["mean_tokens"] + 1
