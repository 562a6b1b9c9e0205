"""A shaper as a reward of stock TRL gives what our trainer gives, resumes, and is the same on two ranks."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import concatenate_datasets
from trl import GRPOTrainer

from concise_rl import ConciseTrainer, Hapo, UserError, load_method
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import as_method
from concise_rl.methods.registry import components, method_names
from concise_rl.rewards import as_reward, check_servable

from ..engine.jobs import accelerate_launch, run_to_end
from . import stock
from .stock import TINY, Rows, config, sums


class Recorder:
    def __init__(self):
        self.rewards = []

    def on_rollouts(self, record):
        self.rewards.append(record.reward.tolist())

    def on_metrics(self, step, metrics):
        pass


@pytest.mark.parametrize("method", [load_method("hapo"), load_method("leash", T=30)])
def test_stock_trl_gets_the_rewards_of_our_trainer(tmp_path, monkeypatch, method):
    sampled, theirs = [], []
    generate, calculate = GRPOTrainer._generate_single_turn, GRPOTrainer._calculate_rewards

    def remember(self, *args, **kwargs):
        sampled.append(generate(self, *args, **kwargs))
        return sampled[-1]

    def see(self, *args):
        theirs.append(calculate(self, *args)[:, 0])
        return theirs[-1][:, None]

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", remember)
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", see)
    reward = as_reward(method)
    GRPOTrainer(
        TINY, reward_funcs=reward, callbacks=[reward], args=config(tmp_path, reward), train_dataset=sums(4)
    ).train()
    monkeypatch.undo()

    again, recorder = iter(sampled), Recorder()

    class Same(ConciseTrainer):
        def _generate_single_turn(self, *args, **kwargs):
            return next(again)

    own = Same(TINY, method=method, args=config(tmp_path), train_dataset=sums(4), sinks=[recorder])
    own.train()
    assert len(theirs) == len(recorder.rewards) == 3
    for stocks, ours in zip(theirs, recorder.rewards, strict=True):
        torch.testing.assert_close(stocks, torch.tensor(ours, dtype=torch.float32), rtol=0, atol=0)
    assert len(torch.cat(theirs).unique()) > 2, "more than right and wrong"
    assert reward.states.keys() == own.states.keys()
    assert reward.state()["attributes"]["arrays"] == as_text(own.states), "one memory"


def as_text(states):
    from concise_rl.engine.state import state_to_json

    return state_to_json(states)["arrays"]


def train(folder, *, resume=None, reward=None, **fields):
    reward = reward or as_reward("hapo")
    args = config(folder, reward, max_steps=4, save_strategy="steps", save_steps=2, **fields)
    # One epoch in which each problem comes four times: a resumed TRL takes up the first epoch's order in any later one.
    problems = concatenate_datasets([sums(2)] * 4)
    trainer = Rows(TINY, reward_funcs=reward, callbacks=[reward], args=args, train_dataset=problems)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.seen, reward


def test_its_memory_is_in_the_checkpoint(tmp_path):
    seen, reward = train(tmp_path / "whole")
    resumed, again = train(tmp_path / "other", resume=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed == seen[2:], "a checkpoint of another folder"
    assert again.states == reward.states
    assert len(reward.states["shaper.hapo"]) == 2
    fresh = as_reward("grpo", verifier=reward.verifier)
    with pytest.raises(UserError, match="was trained with"):
        train(tmp_path / "third", resume=str(tmp_path / "whole" / "checkpoint-2"), reward=fresh)


def test_evaluation_sees_the_memory_and_leaves_it(tmp_path):
    reward = as_reward(Hapo(weight=0.5))
    args = config(tmp_path, reward, per_device_eval_batch_size=4, max_steps=2)
    trainer = Rows(TINY, reward_funcs=reward, callbacks=[reward], args=args, train_dataset=sums(2))
    trainer.train()
    before = reward.state()
    trainer.evaluate(eval_dataset=sums(1))
    assert len(trainer.seen) == 3
    assert reward.state() == before
    assert "hapo/known_frac" in trainer.state.log_history[0], "what the shaper logs is in TRL's logs"


def test_two_processes_hold_the_groups_of_one(tmp_path):
    launch = [*accelerate_launch(), "--num_processes", "2", "--module", stock.__name__]
    run_to_end([*launch, str(tmp_path), "12"], seconds=200)
    one = stock.train(tmp_path, 24)
    assert len(one[0]) == 3
    for rank in (0, 1):  # 12 rows a rank, groups of 8: the second group lies astride
        assert json.loads((tmp_path / f"rank{rank}.json").read_text()) == one


@pytest.mark.parametrize("name", method_names())
def test_every_recipe_is_served_or_says_why_not(name):
    method = load_method(name)
    beyond = {slot for slot in method.components if not slot.startswith("shaper.")} != {"advantage.group_relative"}
    if beyond or "think_entropy" in method.needs or any(field.startswith("trainer.") for field in method.schedules):
        with pytest.raises(UserError, match=r"use concise_rl\.ConciseTrainer"):
            as_reward(name)
    else:
        assert as_reward(name).config["scale_rewards"] in ("group", "batch", "none")


@pytest.mark.parametrize("name", components("shaper"))
def test_every_shaper_is_served_but_the_one_that_reads_entropies(name):
    method = as_method(components("shaper")[name]())
    if name == "pear":
        with pytest.raises(UserError, match="think_entropy"):
            check_servable(method)
    else:
        check_servable(method)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_reward("gfpo"), "filter.gfpo is no shaper"),
        (lambda: as_reward("rloo"), "advantage.leave_one_out is no shaper"),
        (lambda: as_reward("siri"), "trainer.max_completion_length follows a schedule"),
        (lambda: as_reward("pear"), "shaper.pear needs answer_entropy, think_entropy"),
        (lambda: as_reward(Hapo(), weight=0.5), "weight: fields change a recipe"),
        (lambda: as_reward(Hapo), "is no component: give objects"),
        (lambda: as_reward("hapo", truncated="mask"), "mask_truncated_completions"),
        (lambda: as_reward("hapo", wieght=1), "did you mean weight"),
    ],
)
def test_what_no_reward_function_can_do_is_refused_at_once(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "callback", "message"),
    [
        ({}, False, r"callbacks=\[reward\]"),
        ({"restore_callback_states_from_checkpoint": True}, True, "restores itself: leave it out"),
        ({"num_iterations": 2, "save_strategy": "steps", "save_steps": 3}, True, "no multiple of the 2 optimizer"),
    ],
)
def test_a_run_that_would_go_wrong_is_refused(tmp_path, fields, callback, message):
    reward = as_reward("hapo")
    with pytest.raises(UserError, match=message):
        Rows(
            TINY, reward_funcs=reward, callbacks=[reward] if callback else [],
            args=config(tmp_path, reward, **fields), train_dataset=sums(2),
        ).train()  # fmt: skip


def test_a_setting_that_is_not_the_recipes_is_told(tmp_path):
    reward = as_reward("dr_grpo")
    with pytest.warns(UserWarning, match=r"scale_rewards=group stands; dr_grpo asks for none"):
        Rows(TINY, reward_funcs=reward, callbacks=[reward], args=config(tmp_path), train_dataset=sums(2))


def test_a_data_set_without_answers_is_refused(tmp_path):
    reward = as_reward("hapo", answer_column="gold")
    trainer = Rows(TINY, reward_funcs=reward, callbacks=[reward], args=config(tmp_path, reward), train_dataset=sums(2))
    with pytest.raises(UserError, match=r"answer_column='gold': the data set has \['answer', 'difficulty'"):
        trainer.train()


def test_methods_from_components():
    method = as_method([Hapo(weight=0.5), *load_method("dapo").shapers])
    assert isinstance(method, Method)
    assert list(method.components) == ["shaper.hapo", "shaper.overlong", "advantage.group_relative"]
    assert as_method(method) is method
    with pytest.raises(UserError, match=r"shaper.hapo stands twice"):
        as_method([Hapo(), Hapo()])
