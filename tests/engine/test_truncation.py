"""A completion that was cut off, and a group without variance, count as what they are said to, everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from concise_rl.batch import FIELDS, RolloutBatch
from concise_rl.commands.config import compose, teaching_of, trainer_fields
from concise_rl.engine.groups import judge, leave_out
from concise_rl.engine.trainer import ConciseConfig
from concise_rl.errors import UserError
from concise_rl.methods import GroupRelative, method_names
from concise_rl.methods.losses.policy_loss import LOSS_TYPES
from concise_rl.options import Teaching, Truncated
from concise_rl.reporting.glossary import METRICS
from concise_rl.verifiers import Verdict
from tests.methods.test_laws import CASES, assert_same_state, copied, random_batch, state_after

from .conftest import SMALL
from .scripted import right, scripted, wrong
from .test_lean import EXTRA, assert_same, lean, prepared, stored_rollouts


class Signed:
    """1 for the reference, -1 for anything else; remembers what it was asked."""

    hostile_input_safe = True
    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, completion: str, reference: str) -> Verdict:
        self.asked.append(completion)
        correct = completion == reference
        return Verdict(correct, reward=1.0 if correct else -1.0)


PAIRS = [("7", "7"), ("7", "7"), ("8", "7"), ("8", "7")]
CUT_OFF = [False, True, False, True]


def judged(truncated: str) -> list[Verdict]:
    return judge(Signed(), PAIRS, CUT_OFF, truncated=Truncated(truncated), deadline_seconds=1)


def test_wrong_is_the_verdict_flipped_with_the_verifiers_own_wrong_reward():
    as_is = judged("as_is")
    assert [v.reward for v in as_is] == [1, 1, -1, -1]
    assert judged("mask") == as_is
    flipped = [Verdict(False, reward=-1.0) if cut else v for v, cut in zip(as_is, CUT_OFF, strict=True)]
    assert judged("wrong") == flipped


def test_under_wrong_the_verifier_never_reads_what_was_cut_off():
    verifier = Signed()
    judge(verifier, [("9^9^9", "7"), ("7", "7")], [True, False], truncated=Truncated.wrong, deadline_seconds=1)
    assert "9^9^9" not in verifier.asked


def test_a_verifier_that_takes_silence_for_an_answer_is_overruled():
    (verdict,) = judge(Signed(), [("7", "")], [True], truncated=Truncated.wrong, deadline_seconds=1)
    assert verdict == Verdict(False, reward=0.0)


def one_by_one(kind: str):
    """The links of a kind whose value is not made by the order or the number of the rows that are left out."""
    chosen = {name: c for name, c in CASES[kind].items() if not c.order_matters and name not in UNLIKE}
    return pytest.mark.parametrize("link", chosen.values(), ids=chosen.keys())


UNLIKE = {
    "hapo-variant=code": "its released code averages over G updates, whoever of the G was scorable",
}
shapers, advantages = one_by_one("shaper"), one_by_one("advantage")


def rows_of(batch: RolloutBatch, rows: Tensor) -> RolloutBatch:
    """The batch of these rows alone, equally many in each group."""
    size = len(rows) // batch.n_prompts
    chosen = {name: getattr(batch, name)[rows] for name in FIELDS if getattr(batch, name) is not None}
    parts = {name: part[rows] for name, part in batch.parts.items()}
    costs = {name: cost[rows] for name, cost in batch.costs.items()}
    return batch.replace(group_size=size, parts=parts, costs=costs, **chosen)


CUT_G = torch.tensor([False, True, False, False, True, False])


def masked_batch(link) -> tuple[RolloutBatch, RolloutBatch]:
    """A batch with masked rows, and the batch of the others alone."""
    counts = torch.ones(30, dtype=torch.bool)
    batch = random_batch(0, link.needs, truncated=CUT_G.repeat(5), scorable=counts, counts=counts)
    taught = leave_out(batch, Teaching(truncated="mask"))
    return taught, rows_of(taught, taught.counts.nonzero().flatten())


@shapers
def test_a_masked_row_is_shaped_and_remembered_as_if_it_were_not_there(link):
    state = state_after(link, 100)
    taught, without = masked_batch(link)
    out, after = link(taught, taught.task_reward, copied(state))
    expected, expected_after = link(without, without.task_reward, copied(state))
    assert_close(out.value[taught.counts], expected.value, rtol=1e-12, atol=1e-12)
    assert_same_state(after, expected_after)
    assert out.metrics == pytest.approx(expected.metrics)


@advantages
def test_a_masked_row_is_in_no_baseline(link):
    taught, without = masked_batch(link)
    credit = link(taught, taught.task_reward, link.init())[0].value
    expected = link(without, without.task_reward, link.init())[0].value
    assert_close(credit[taught.counts], expected, rtol=1e-12, atol=1e-12)


@shapers
def test_a_dropped_group_is_as_if_it_had_not_been_sampled(link):
    uniform_P = [1, 3]
    correct = random_batch(0).by_group(random_batch(0).correct).clone()
    correct[1], correct[3] = True, False
    correct[[0, 2, 4], 0], correct[[0, 2, 4], 1] = True, False
    all_rows = torch.ones(30, dtype=torch.bool)
    batch = random_batch(0, link.needs, correct=correct.reshape(-1), scorable=all_rows, counts=all_rows)
    state = state_after(link, 100)
    taught = leave_out(batch, Teaching(zero_variance="drop"))
    assert batch.without_variance(batch.task_reward).nonzero().flatten().tolist() == uniform_P
    without = batch.take_prompts([0, 2, 4])
    out, after = link(taught, taught.task_reward, copied(state))
    expected, expected_after = link(without, without.task_reward, copied(state))
    assert_close(out.value[taught.counts], expected.value, rtol=1e-12, atol=1e-12)
    assert_same_state(after, expected_after)
    for scale in ("group", "batch", "none"):
        advantage = GroupRelative(scale=scale)
        credit = advantage.apply(taught, out.value).value
        assert_close(credit[taught.counts], advantage.apply(without, expected.value).value, rtol=1e-12, atol=1e-12)
        assert not credit[~taught.counts].any()


def test_variance_is_over_the_rows_that_count():
    batch = RolloutBatch.of(
        prompt_keys=["a", "b", "c", "d"],
        group_size=3,
        lengths=[5] * 12,
        correct=[1, 1, 0] * 4,
        truncated=[0, 0, 1] * 2 + [0, 1, 0] * 2,
        scorable=[1, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1],
    )
    assert batch.without_variance(batch.task_reward).tolist() == [False, True, False, True]
    teaches = leave_out(batch, Teaching(truncated="mask", zero_variance="drop")).counts
    # a: what remains is all right. b: so too. c: one right and one wrong remain. d: one row remains.
    assert teaches.tolist() == [False] * 6 + [True, False, True] + [False] * 3


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("loss_type", sorted(LOSS_TYPES))
def test_rows_out_of_the_loss_are_in_no_denominator(make_trainer, loss_type, beta):
    trainer = prepared(
        make_trainer, f"trainer.loss_type={loss_type}", f"trainer.beta={beta}", *EXTRA.get(loss_type, [])
    )
    inputs = stored_rollouts(old=True, beta=beta > 0)
    inputs["advantages"] = torch.tensor([0.4, 1.3, -0.4, -1.0, 0.7, 0.2])
    rows = torch.tensor([0, 2, 3, 5])
    without = {name: value if value.ndim == 0 else value[rows] for name, value in inputs.items()}
    expected = lean(trainer, [without])
    masked = dict(inputs, completion_mask=inputs["completion_mask"].clone())
    masked["completion_mask"][[1, 4]] = 0
    assert_same(lean(trainer, [masked]), expected)


def say(question: str, g: int, step: int) -> tuple[str, bool]:
    """Right, wrong, right and longer; and a fourth that is right, too, but was cut off."""
    return [
        (right(question), True),
        (wrong(question), True),
        (right(question, checks=1), True),
        (right(question), False),
    ][g]


@pytest.mark.parametrize("method", ["grpo", "hapo", "rloo", "dapo"])
def test_training_with_a_masked_row_is_training_without_it(make_trainer, method):
    overrides = (f"method={method}", "truncated=mask", "trainer.max_completion_length=160")
    whole, seen = make_trainer(*overrides, kind=scripted(say))
    less, seen_less = make_trainer(
        *overrides, "trainer.num_generations=3", "trainer.per_device_train_batch_size=12", kind=scripted(say)
    )
    start = {name: weight.clone() for name, weight in whole.model.state_dict().items()}
    for trainer in (whole, less):
        trainer.train()
    assert seen.records[0].batch.prompt_keys == seen_less.records[0].batch.prompt_keys
    credit = seen.records[0].batch.by_group(seen.records[0].credit)
    assert_close(credit[:, :3].reshape(-1), seen_less.records[0].credit, rtol=0, atol=0)
    assert whole.states == less.states
    weights = less.model.state_dict()
    assert any(not torch.equal(weight, start[name]) for name, weight in weights.items())
    for name, weight in whole.model.state_dict().items():
        # Adam's step has the size of the learning rate where a gradient is next to nothing: the mean must agree.
        assert (weight - weights[name]).abs().mean() < 2e-6, name
    first = seen.metrics[0]
    assert (first["truncated_frac"], first["left_out_frac"], first["accuracy"]) == (0.25, 0.25, 0.75)
    assert "left_out_frac" in METRICS


@pytest.mark.parametrize(("truncated", "correct", "reward"), [("as_is", True, 1.0), ("wrong", False, 0.0)])
def test_a_truncated_row_is_judged_as_asked_in_every_place(make_trainer, truncated, correct, reward):
    trainer, seen = make_trainer(
        "method=hapo", f"truncated={truncated}", "trainer.max_completion_length=160", kind=scripted(say)
    )
    trainer.train()
    batch = seen.records[0].batch
    assert batch.scorable.all()
    assert batch.truncated.tolist() == [False, False, False, True] * 4
    assert batch.correct.tolist() == [True, False, True, correct] * 4
    assert batch.task_reward.tolist() == [1.0, 0.0, 1.0, reward] * 4
    assert seen.metrics[0]["accuracy"] == (0.75 if correct else 0.5)
    history = trainer.states["shaper.hapo"]
    _, counts = history.lookup(batch.prompt_keys)
    assert counts.tolist() == [3 if correct else 2] * 4


def test_dropped_groups_have_no_token_in_the_loss(make_trainer):
    def even_questions_are_all_right(question, g, step):
        return (right(question) if len(question) % 2 or g else wrong(question)), True

    trainer, seen = make_trainer(
        "method=hapo", "zero_variance=drop", "trainer.max_completion_length=160", "trainer.max_steps=1",
        kind=scripted(even_questions_are_all_right),
    )  # fmt: skip
    trainer.train()
    record, (buffered,) = seen.records[0], trainer._buffered_inputs
    uniform_P = torch.tensor([len(prompt) % 2 == 1 for prompt in record.prompts])
    assert 0 < uniform_P.sum() < 4
    left_out = record.batch.per_row(uniform_P)
    assert torch.equal(~record.batch.counts, left_out)
    assert record.batch.scorable.all(), "what is left out stays scorable"
    assert not record.credit[left_out].any()
    assert (buffered["completion_mask"].sum(dim=1) == 0).sum() == left_out.sum()
    assert buffered["num_items_in_batch"] == buffered["completion_mask"].sum() == record.batch.lengths[~left_out].sum()
    metrics = seen.metrics[0]
    assert metrics["left_out_frac"] == metrics["zero_variance_frac"] == pytest.approx(float(uniform_P.double().mean()))
    history = trainer.states["shaper.hapo"]
    assert (history.lookup(record.batch.prompt_keys)[1] > 0).tolist() == (~uniform_P).tolist()


def test_one_way_to_mask_and_only_known_choices():
    with pytest.raises(UserError, match=r"mask_truncated_completions=true: .* set truncated=mask"):
        ConciseConfig(**trainer_fields(compose([*SMALL, "trainer.mask_truncated_completions=true"])))
    with pytest.raises(UserError, match="truncated='cut': choose one of wrong, as_is, mask"):
        teaching_of(compose(["truncated=cut"]))
    with pytest.raises(UserError, match="refill_rounds=0: need at least 1"):
        teaching_of(compose(["refill_rounds=0"]))


@pytest.mark.parametrize("method", method_names())
def test_every_method_logs_what_shaping_did_to_right_answers(make_trainer, method):
    rules = [f"method={method}", "trainer.max_completion_length=160", "trainer.max_steps=1"]
    rules += ["cut.dot.alpha=1"] if method == "dot" else []  # groups of four have no outlier at 3
    trainer, seen = make_trainer(*rules, kind=scripted(say))
    trainer.train()
    assert 0 <= seen.metrics[0]["wiped_correct_frac"] <= 1
    # A sampler makes other rows of what the script says, an edit other questions than it knows the answers to.
    if not (trainer.method.sampler or trainer.method.edit):
        assert seen.metrics[0]["zero_variance_frac"] == 0
