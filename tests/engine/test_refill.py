"""Dynamic sampling: groups without variance give way, the same ones on any ranks and after any resume."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from concise_rl.engine import checkpoint, groups
from concise_rl.engine.groups import DatasetRow, Sample, draw_rows, refill
from concise_rl.errors import UserError
from concise_rl.methods.curricula.pass_rate import PassRate
from concise_rl.options import Teaching
from concise_rl.reporting.glossary import METRICS
from concise_rl.rollouts import LocalRollout
from concise_rl.verifiers import Verdict

from .ranks import launch
from .scripted import right, scripted, wrong

G = 3


def sampled(row: DatasetRow, g: int) -> Sample:
    """A prompt named `<pattern>/<n>` is answered as its pattern says, `+` right and `-` wrong; n tokens each."""
    pattern, tokens = row["prompt_key"].split("/")[:2]
    correct = pattern[g] == "+"
    rollout = LocalRollout(row["prompt_key"], "", [1] * int(tokens), "", Verdict.of(correct), {})
    return Sample(row, [0], "", rollout, cut_off=False)


def a_step(*prompt_ids: str) -> list[Sample]:
    return [sampled({"prompt_key": prompt_id}, g) for prompt_id in prompt_ids for g in range(G)]


FIRST = ("+++/5", "++-/6", "---/7", "+-+/8")
POOL = ("+++/1/a", "-+-/2/b", "---/3/c", "+-+/4/d", "++-/9/e")
"""Drawn one after the other."""


def on_ranks(ranks: int, monkeypatch: pytest.MonkeyPatch, first=FIRST, pool=POOL, rounds: int = 3):
    """`refill` on so many ranks, each a thread: the step's prompts, what each says it cost, rows that each sampled."""
    own_rank = threading.local()
    barrier, board = threading.Barrier(ranks, timeout=20), [None] * ranks

    def everywhere(value):
        board[own_rank.value] = value
        barrier.wait()
        found = list(board)
        barrier.wait()
        return found

    monkeypatch.setattr(groups, "rank", lambda: (own_rank.value, ranks))
    monkeypatch.setattr(groups, "on_every_rank", everywhere)
    step, found, asked = a_step(*first), [None] * ranks, [[] for _ in range(ranks)]
    share, untouched = len(step) // ranks, [[] for _ in range(ranks)]

    def work(place: int) -> None:
        own_rank.value = place
        left = untouched[place] = list(pool)

        def draw(n, used, round_number):
            assert not used & set(left)
            return [{"prompt_key": left.pop(0)} for _ in range(min(n, len(left)))]

        def sample(rows):
            asked[place].append(len(rows))
            # The place of a row in its group, counted over the ranks.
            return [sampled(row, (place * len(rows) + b) % G) for b, row in enumerate(rows)]

        teaching = Teaching(zero_variance="refill", refill_rounds=rounds)
        found[place] = refill(step[place * share :][:share], group_size=G, teaching=teaching, draw=draw, sample=sample)

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    rows = [s.row["prompt_key"] for one in found for s in one.kept]
    assert [s.rollout.prompt_key for one in found for s in one.kept] == rows
    thrown = [s.rollout.prompt_key for one in found for s in one.thrown]
    assert thrown == [key for key in thrown[::G] for _ in range(G)], "whole groups, in the order of the ranks"
    everything = {row.rollout.prompt_key for row in step} | set(pool[: len(pool) - len(untouched[0])])
    assert set(thrown) | set(rows) == everything
    assert len(set(thrown[::G])) == len(thrown) // G
    assert not set(thrown) & set(rows)
    return rows[::G], [one.cost for one in found], asked


def test_a_worked_step(monkeypatch):
    prompts, (cost,), asked = on_ranks(1, monkeypatch)
    # Round 1 draws two for the places 0 and 2: a is all right, b takes place 0. Round 2: c is all wrong. Round 3: d.
    assert prompts == ["-+-/2/b", "++-/6", "+-+/4/d", "+-+/8"]
    assert asked == [[6, 3, 3]]
    kept, everything = 3 * (2 + 6 + 4 + 8), 3 * (5 + 6 + 7 + 8 + 1 + 2 + 3 + 4)
    assert cost == {
        "refill_rounds": 3,
        "refilled_groups_frac": 0.5,
        "refill_tokens_frac": pytest.approx(1 - kept / everything),
        "sampled_accuracy": pytest.approx((3 + 2 + 0 + 2 + 3 + 1 + 0 + 2) / 24),
    }


def test_what_is_left_after_the_last_round_stays(monkeypatch):
    prompts, (cost,), _ = on_ranks(1, monkeypatch, rounds=1)
    assert prompts == ["-+-/2/b", "++-/6", "---/7", "+-+/8"]
    assert cost["refill_rounds"] == 1


def test_refilling_ends_where_the_training_set_does(monkeypatch):
    prompts, (cost,), asked = on_ranks(1, monkeypatch, pool=POOL[:1])
    assert prompts == list(FIRST)
    assert asked == [[3]]
    assert cost["refill_rounds"] == 1


def test_a_step_full_of_variance_draws_nothing(monkeypatch):
    first = ("++-/6", "+-+/8")
    prompts, (cost,), asked = on_ranks(1, monkeypatch, first=first)
    assert (prompts, asked) == (list(first), [[]])
    assert cost == {
        "refill_rounds": 0, "refilled_groups_frac": 0, "refill_tokens_frac": 0, "sampled_accuracy": pytest.approx(2 / 3)
    }  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3, 4, 6, 12])
def test_any_number_of_ranks_makes_the_same_step(monkeypatch, ranks):
    expected = on_ranks(1, monkeypatch)
    prompts, costs, asked = on_ranks(ranks, monkeypatch)
    assert prompts == expected[0]
    assert costs == expected[1] * ranks
    assert len({tuple(rounds) for rounds in asked}) == 1, "every rank samples equally many rows in every round"
    assert min(asked[0]) > 0


def test_a_draw_depends_on_its_seed_alone_and_takes_no_prompt_twice():
    dataset = [{"prompt_key": f"p{k // 2}"} for k in range(40)]  # every prompt stands twice
    used = {"p3", "p4"}
    rows = draw_rows(dataset, 15, used, [0, 7, 0, 1])
    ids = [row["prompt_key"] for row in rows]
    assert len(set(ids)) == 15
    assert not used & set(ids)
    assert rows == draw_rows(dataset, 15, used, [0, 7, 0, 1])
    assert rows != draw_rows(dataset, 15, used, [0, 7, 0, 2])
    assert len(draw_rows(dataset, 99, used, [0])) == 18


# -- in the trainer ----------------------------------------------------------------------------------------------------

ROOMY = ("trainer.max_completion_length=160", "method=hapo")


def even_ones_vary(question: str, g: int, step: int) -> tuple[str, bool]:
    return (wrong(question) if g == step % 4 and len(question) % 2 == 0 else right(question, checks=g % 2)), True


def test_groups_of_other_prompts_take_the_places(make_trainer):
    rules = ("zero_variance=refill", "refill_rounds=20")
    trainer, seen = make_trainer(*ROOMY, *rules, kind=scripted(even_ones_vary))
    kept, seen_kept = make_trainer(*ROOMY, kind=scripted(even_ones_vary))
    for each in (trainer, kept):
        each.train()
    for record, first, metrics in zip(seen.records, seen_kept.records, seen.metrics, strict=True):
        stays = [len(prompt) % 2 == 0 for prompt in first.prompts]
        assert not all(stays)
        for p, stay in enumerate(stays):
            assert (record.batch.prompt_keys[p] == first.batch.prompt_keys[p]) == stay
        assert all(len(prompt) % 2 == 0 for prompt in record.prompts)
        assert record.batch.correct.tolist() == [g != record.batch.step % 4 for g in range(4)] * 4
        assert metrics["refilled_groups_frac"] == stays.count(False) / 4
        assert 0 < metrics["refill_tokens_frac"] < 1
        assert metrics["left_out_frac"] == 0
        assert metrics["accuracy"] == 0.75 < metrics["sampled_accuracy"]
        assert {name for name in metrics if name.startswith("refill")} < METRICS.keys()
    # What the loss reads is what the batch holds.
    (buffered,) = trainer._buffered_inputs
    lengths = sorted(buffered["completion_mask"].sum(dim=1).tolist())
    assert lengths == sorted(seen.records[-1].batch.lengths.tolist())
    history = trainer.states["shaper.hapo"]
    history_kept = kept.states["shaper.hapo"]
    thrown_away = set(seen_kept.records[0].batch.prompt_keys) - set(seen.records[0].batch.prompt_keys)
    assert (history.lookup(sorted(thrown_away))[1] == 0).all()
    assert (history_kept.lookup(sorted(thrown_away))[1] > 0).all()


@pytest.mark.parametrize("rule", ["drop", "refill"])
def test_a_curriculum_hears_of_groups_that_were_thrown_away(make_trainer, rule):
    """A prompt whose answers are all right is removed for good, whether its group stayed in the step or not."""
    rules = ["method=grpo", "method.curriculum=pass_rate", f"zero_variance={rule}", "trainer.max_steps=3"]
    trainer, seen = make_trainer(ROOMY[0], *rules, kind=scripted(even_ones_vary))
    trainer.train()
    state = trainer.states["curriculum.pass_rate"]
    questions = dict(zip(trainer.train_dataset["prompt_key"], trainer.train_dataset["prompt"], strict=True))
    trained = {key for record in seen.records for key in record.batch.prompt_keys}
    assert set(state["removed"]) == {key for key in state["drawn"] if len(questions[key]) % 2}
    assert state["removed"]
    assert set(state["drawn"]) >= trained
    assert (len(state["drawn"]) > len(trained)) == (rule == "refill")
    assert set(state["drawn"].values()) == {1}
    assert set(state["sampled"].values()) == {4}


def test_a_curriculum_that_needs_scores_is_refused(make_trainer, monkeypatch):
    monkeypatch.setattr(PassRate, "needs", frozenset({"mean_entropy"}))
    with pytest.raises(UserError, match=r"PassRate needs mean_entropy.*zero_variance=drop"):
        make_trainer("method=grpo", "method.curriculum=pass_rate", "zero_variance=refill")


def test_where_every_group_has_variance_the_run_is_that_of_keep(make_trainer):
    def vary(question, g, step):
        return (right(question, checks=g) if g % 2 else wrong(question)), True

    runs = []
    for rule in ("keep", "refill"):
        trainer, seen = make_trainer(*ROOMY, f"zero_variance={rule}", kind=scripted(vary))
        trainer.train()
        runs.append((trainer.model.state_dict(), seen.metrics))
    (weights, metrics), (weights_refill, metrics_refill) = runs
    assert all(torch.equal(weight, weights_refill[name]) for name, weight in weights.items())
    times = {"step_time", "generate_seconds"}
    for line, line_refill in zip(metrics, metrics_refill, strict=True):
        assert {k: v for k, v in line.items() if k not in times}.items() <= line_refill.items()


def test_evaluation_draws_nothing(make_trainer, monkeypatch):
    trainer, _ = make_trainer(*ROOMY, "zero_variance=refill", "trainer.max_steps=1", kind=scripted(even_ones_vary))
    trainer.train()
    monkeypatch.setattr(trainer, "_refill", None)
    trainer.args.per_device_eval_batch_size = 8
    trainer.num_generations_eval = 4
    found = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert "eval_accuracy" in found
    assert "eval_refill_rounds" not in found


def test_a_resumed_run_draws_the_same_prompts(make_trainer):
    """The real sampler, hot enough for mistakes, and rows masked too: many of its answers do not fit 48 tokens."""
    rules = ["method=dapo", "truncated=mask", "zero_variance=refill", "trainer.temperature=1.5"]
    rules += ["trainer.max_steps=3", "trainer.save_strategy=steps", "trainer.save_steps=2"]
    whole, seen = make_trainer(*rules)
    whole.train()
    assert sum(line["refilled_groups_frac"] for line in seen.metrics[2:]) > 0
    for line in seen.metrics:
        assert {"refill_rounds", "refill_tokens_frac", "sampled_accuracy", "left_out_frac"} <= line.keys()
    assert seen.metrics[0]["truncated_frac"] > 0
    resumed, seen_again = make_trainer(*rules)
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    record, again = seen.records[2], seen_again.records[0]
    assert record.batch.prompt_keys == again.batch.prompt_keys
    assert record.completions == again.completions
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_two_processes_refill_as_one_does(tmp_path):
    # 24 rows are three groups of 8, the second astride the ranks. All answers to a question of odd length are right,
    # which is half of the questions, so without refilling half of the 12 groups would be without variance.
    runs = []
    for layout in ("one", "ddp"):
        launch(tmp_path / layout, layout, "hapo", "zero_variance=refill", "method.curriculum=pass_rate")
        runs.append(json.loads((tmp_path / layout / "steps.json").read_text()))
    assert runs[0] == runs[1]
    right_P = [sum(step["batch"]["correct"][p * 8 :][:8]) for step in runs[0] for p in range(3)]
    assert sum(0 < right < 8 for right in right_P) >= 10
    folders = [tmp_path / place for place in ("one/rank0", "ddp/rank0", "ddp/rank1")]
    heard = [checkpoint.load_state(folder)[0]["curriculum.pass_rate"] for folder in folders]
    assert heard[0] == heard[1] == heard[2]
    assert len(heard[0]["removed"]) > 3
