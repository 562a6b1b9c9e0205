"""Schedules of the sampling limit by recipe: the papers' numbers, and a schedule that a run does not reach."""

from __future__ import annotations

import pytest

from concise_rl.commands.config import compose, steps_of, trainer_fields
from concise_rl.errors import UserError
from concise_rl.methods import load_method
from concise_rl.methods.schedules import out_of_reach


def test_siri_follows_the_cosine_of_the_paper():
    schedule = load_method("siri").schedule
    expected = {0: 16384, 80: 15184, 160: 12288, 240: 9391, 320: 8192, 640: 16384}
    assert {step: schedule(step) for step in expected} == expected
    assert all(isinstance(schedule(step), int) for step in range(640))


def test_siri_takes_its_numbers_by_name():
    assert load_method("siri", minimum=256, maximum=1024, period=40).schedule(10) == 640
    with pytest.raises(UserError, match="minimum=20000, maximum=16384: need 1 <= minimum <= maximum"):
        load_method("siri", minimum=20000)


def test_length_stages_are_those_of_thinkprune():
    schedule = load_method("length_stages").schedule
    assert [schedule(step) for step in (0, 179, 180, 359, 360, 9999)] == [4000, 4000, 3000, 3000, 2000, 2000]
    own = load_method("length_stages", stages=[[0, 100], [5, 60]]).schedule
    assert [own(4), own(5)] == [100, 60]


@pytest.mark.parametrize("stages", [[[1, 100]], [[0, 100], [5, 60], [5, 40]], [[0, 100], [9, 60], [5, 40]], []])
def test_stages_that_do_not_rise_from_0_are_refused(stages):
    with pytest.raises(UserError, match="stages="):
        load_method("length_stages", stages=stages)


def test_a_stair_whose_second_stage_is_never_reached_is_refused():
    schedules = load_method("length_stages").schedules
    for steps in (2, 180):
        with pytest.raises(UserError, match=f"stays 4000 up to step 180, and trainer.max_steps={steps} ends before"):
            out_of_reach(schedules, steps)
    slow = load_method("kimi", weight={"exponential": {"start": 1, "factor": 0.5, "every": 9}}).schedules
    with pytest.raises(UserError, match=r"shaper.kimi_length.weight stays 1 up to step 9"):
        out_of_reach(slow, 9)
    assert out_of_reach(slow, 10) == []


def test_what_a_run_does_not_see_of_its_schedule_is_told():
    (told,) = out_of_reach(load_method("length_stages").schedules, 181)
    assert told.startswith("trainer.max_completion_length leads to 2000 at step 360, but trainer.max_steps=181 ends at")
    assert out_of_reach(load_method("length_stages").schedules, 361) == []
    (told,) = out_of_reach(load_method("siri").schedules, 320)
    assert "leads to 8192 at step 320" in told
    assert out_of_reach(load_method("siri").schedules, 321) == []
    ramp = load_method("kimi", weight={"linear": {"start": 0, "end": 1, "steps": 50}}).schedules
    assert out_of_reach(ramp, 50) == []
    assert len(out_of_reach(ramp, 49)) == 1


def test_the_longest_limit_of_the_run_is_planned_for_and_evaluated_with():
    rising = "trainer.max_completion_length={stages: [[0, 50], [8, 90], [40, 200]]}"
    composed = compose(["method=length_stages", "trainer.max_steps=20", rising])
    assert trainer_fields(composed)["max_completion_length"] == composed.evaluation.max_new_tokens == 90
    assert compose(["method=siri", "trainer.max_completion_length=48"]).evaluation.max_new_tokens == 48


def test_a_schedule_asks_for_a_number_of_steps():
    with pytest.raises(UserError, match=r"set trainer\.max_steps"):
        steps_of(compose(["method=siri", "trainer.max_steps=-1"]))
