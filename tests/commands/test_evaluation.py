"""A run's evaluation and `concise-rl eval` are one call with one set of settings, and ignore none of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from concise_rl.assets import TINY
from concise_rl.commands import config, run_evaluations
from concise_rl.commands.evaluate import default_folder, planned
from concise_rl.commands.evaluation import evaluate, settings_of
from concise_rl.engine.stopping import Stopped, StopSignals
from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation
from concise_rl.model.loading import load_model, load_test, load_tokenizer
from concise_rl.reporting.evaluations import sampling_line
from concise_rl.reporting.session import Session

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "max_new_tokens": 12,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 3,
    "min_p": 0.1,
    "think_end": "4",
    "system": "sum",
    "samples": 2,
    "seed": 7,
    "chat_template_kwargs": {"shout": True},
    "verify_deadline_seconds": 3.0,
}
OVERRIDES = [
    "evaluation.problems=3",
    "evaluation.max_new_tokens=12",
    "evaluation.temperature=0.5",
    "evaluation.top_p=0.9",
    "evaluation.top_k=3",
    "evaluation.min_p=0.1",
    "model.think_end='4'",
    "system_prompt=sum",
    "evaluation.samples=2",
    "evaluation.seed=7",
    "trainer.chat_template_kwargs={shout: true}",
    "verify_deadline_seconds=3.0",
]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if shout %}={% endif %}"


def task(*overrides: str):
    (found,) = planned(config.compose(list(overrides), "eval"), "chosen", overrides)
    return found


@pytest.mark.parametrize("name", ["train", "eval"])
def test_every_setting_reaches_the_evaluation(name):
    """Each value differs from its default, so that one which is dropped shows in what is stored."""
    from concise_rl.testbeds import ChainSum

    composed = config.compose(config.open_foreign(OVERRIDES), name)
    assert settings_of(composed) == SETTINGS
    source = ChainSum()
    verifier = config.verifier_of(composed, "data" if name == "train" else "benchmark")
    tokenizer, model = load_tokenizer(composed.model), load_model(composed.model)
    tokenizer.chat_template = TEMPLATE
    prompts = load_test(composed, source, verifier)
    made = (run_evaluations.evaluate if name == "train" else evaluate)(composed, model, tokenizer, prompts, verifier)
    stored = {key: made.settings[key] for key in SETTINGS if key != "verify_deadline_seconds"}
    assert stored == {key: value for key, value in SETTINGS.items() if key in stored}
    assert len(made.rows) == 6
    assert all(row.length <= 12 for row in made.rows)
    assert all(row.prompt.startswith("sum") and row.prompt.endswith("==") for row in made.rows)
    questions = [prompt.messages[-1]["content"] for prompt in prompts for _ in range(2)]
    assert [row.problem for row in made.rows] == questions, "people see the problem, not the template around it"
    assert [type(row).from_json(row.to_json()) for row in made.rows] == list(made.rows)
    assert made.rows[0].completion.startswith("4")
    assert made.rows[0].think_length == 0, "thinking ends where the model's own tag is"


def test_an_evaluation_of_the_same_start_is_taken_and_any_other_refused(tmp_path):
    """`evaluation.before`: a run's file, or one of `concise-rl eval`, which says nothing of a run."""
    small = ["evaluation.problems=3", "evaluation.max_new_tokens=4"]
    composed = config.compose(small)
    tokenizer, model = load_tokenizer(composed.model), load_model(composed.model)
    source, verifier = config.to_object(composed.data, "data"), config.verifier_of(composed)

    def begun(name: str, *overrides: str, resumed: bool = False) -> Evaluation | None:
        own = config.compose([*small, *overrides])
        problems = load_test(own, source, verifier)
        with StopSignals() as signals:
            session = Session(name, tmp_path / name, total_steps=1, active=True, show_progress=False)
            run = run_evaluations.RunEvaluations(own, tokenizer, verifier, session, signals, test=problems, watched=())
            run.check_stored(resumed=resumed)
            run.begin(model, stored=resumed)
        return run.before

    first = begun("first")
    of_a_run, of_eval = tmp_path / "first" / "evaluation-before.jsonl", tmp_path / "eval.jsonl"
    evaluate(composed, model, tokenizer, load_test(composed, source, verifier), verifier).save(of_eval)
    samples = model.register_forward_pre_hook(lambda *_: pytest.fail("it samples"))
    for name, path in (("second", of_a_run), ("third", of_eval)):
        taken = begun(name, f"evaluation.before={path}")
        assert taken.rows == first.rows
        assert Evaluation.load(tmp_path / name / "evaluation-before.jsonl") == first
    again = begun("third", f"evaluation.before={tmp_path / 'gone.jsonl'}", resumed=True)
    assert again == first, "a resumed run has it in its folder"
    for override, said in (
        ("evaluation.problems=2", "evaluation.problems=2, .* was made with 3"),
        ("evaluation.max_new_tokens=5", "evaluation.max_new_tokens=5, .* was made with 4, .* or leave out evaluation"),
        ("evaluation.problems=0", "evaluation.problems=0 evaluates nothing"),
        (f"evaluation.before={tmp_path / 'none.jsonl'}", "there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            begun("refused", f"evaluation.before={of_a_run}", override)
    for override, said in (("evaluation.problems=2", "problems"), ("evaluation.seed=5", "seed")):
        with pytest.raises(UserError, match=f"{of_eval} is of other {said} than this run's start"):
            begun("refused", f"evaluation.before={of_eval}", override)
    samples.remove()
    next(model.parameters()).data += 1
    with pytest.raises(UserError, match="is of other weights than this run's start: leave it out"):
        begun("refused", f"evaluation.before={of_a_run}")


class Signalling:
    """Sends SIGTERM from a destructor, where Python swallows what the handler raises."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_destructor_swallows_ends_the_evaluation(tmp_path):
    composed = config.compose(["evaluation.problems=3", "evaluation.max_new_tokens=4"])
    tokenizer, model = load_tokenizer(composed.model), load_model(composed.model)
    source, verifier = config.to_object(composed.data, "data"), config.verifier_of(composed)
    problems = load_test(composed, source, verifier)
    model.register_forward_pre_hook(lambda *_: Signalling() and None)
    session = Session("swallowed", tmp_path, total_steps=1, active=True, show_progress=False)
    with StopSignals() as signals:
        run = run_evaluations.RunEvaluations(composed, tokenizer, verifier, session, signals, test=problems, watched=())
        with pytest.raises(Stopped):
            run.end(model)
    assert signals.received == "SIGTERM"
    assert not (tmp_path / "evaluation-after.jsonl").exists()


def test_an_evaluation_asks_for_effort_as_training_does(tmp_path, monkeypatch):
    """The edit reaches text, columns, settings and the folder's name; the problem keeps its key."""
    (tmp_path / "my_edits.py").write_text(
        "from dataclasses import dataclass\n"
        "from concise_rl.methods import Edit\n"
        "from concise_rl.methods.edits.wording import ask\n\n\n"
        "@dataclass\nclass Politely(Edit):\n    words: str = ' please'\n\n"
        "    def __call__(self, prompt, rng):\n        return ask(prompt, self.words)\n"
    )
    monkeypatch.chdir(tmp_path)
    low = ["edit=effort", "edit.share=1", "evaluation.problems=3", "evaluation.max_new_tokens=4"]
    composed = task(*low).config
    assert default_folder(composed).name.endswith("PromptEffort-1")
    tokenizer, model = load_tokenizer(composed.model), load_model(composed.model)
    verifier = config.verifier_of(composed, "benchmark")
    problems = load_test(composed, config.to_object(composed.benchmark, "benchmark"), verifier)
    made = evaluate(composed, model, tokenizer, problems, verifier, edit=config.edit_of(composed))
    assert [row.prompt_id for row in made.rows] == [problem.id for problem in problems]
    assert all("effort: low" in row.prompt and row.columns["low_effort"] is True for row in made.rows)
    assert "prompts edited by PromptEffort (level low, share 1" in sampling_line(made.settings)
    own = task("edit=own", "edit.path=my_edits.py:Politely", "++edit.fields.words=?").config
    assert config.edit_of(own).words == "?"
    assert config.edit_of(task("edit=none").config) is None


def test_the_two_schemas_are_one():
    schemas = [OmegaConf.to_container(config.compose([], name).evaluation, resolve=True) for name in ("train", "eval")]
    assert schemas[0].keys() == schemas[1].keys() | set(config.VALIDATION_FIELDS)
    assert {name: schemas[0][name] for name in schemas[1]} | {"problems": None} == schemas[1]


def test_model_recipes_carry_their_makers_sampling_and_data_recipes_come_after():
    def drawn(*overrides: str, name: str = "eval"):
        found = settings_of(config.compose(list(overrides), name))
        return tuple(found[key] for key in ("temperature", "top_p", "top_k", "min_p", "max_new_tokens"))

    for name in ("train", "eval"):
        assert drawn("model=qwen3_0.6b", name=name) == (0.6, 0.95, 20, 0.0, 4096)
        assert drawn("model=r1_distill_qwen_7b", name=name) == (0.6, 0.95, 0, 0.0, 8192)
        assert drawn("model=tiny", name=name) == (1.0, 1.0, 0, 0.0, 160)
    assert drawn("model=qwen3_4b", "evaluation.temperature=0", "evaluation.max_new_tokens=64")[::4] == (0, 64)
    assert drawn("model=smollm2_135m", "data=sums_in_words", name="train") == (0.8, 1.0, 0, 0.0, 48)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.nonsense=0"],
            "trainer.nonsense has no effect in an evaluation; choose from chat_template_kwargs, max",
        ),
        (["++trainer.temperature=0"], "trainer.temperature has no effect .*evaluation.temperature"),
        (["trainer.max_completion_lenght=9"], "did you mean max_completion_length"),
        (["edit=effort", "edit.level=lwo"], "PromptEffort.level='lwo'"),
        (["edit=own"], "edit.path must be set"),
        (["edit=own", "edit.path=nowhere.py:Mine"], "there is no file nowhere.py"),
        (["edit=budget_prompt", "edit.budget={linear: {start: 1, end: 2, steps: 3}}"], "no steps for a schedule"),
        (["model=hf", "model.path=my_model"], "evaluation.max_new_tokens is not set: give the most tokens"),
        (["model.path=my_model"], "the limit of model=tiny is not that of my_model; give evaluation.max_new_tokens=N"),
        (
            ["backend=http", "backend.base_url=http://x", "backend.model=served", "backend.endpoint=chat"],
            "the limit of model=tiny is not that of served",
        ),
        (["sweep.budgets=[8,161]"], "sweep.budgets=161 is above evaluation.max_new_tokens=160"),
        (["mode=truncated", "mode.budget=200"], "mode.budget=200 is above"),
        (["benchmarks=[{benchmark: chain_sum}]", "sweep.budgets=[999]"], "sweep.budgets=999 is above"),
        (["evaluation.temperature=-1"], "temperature=-1.0: give 0"),
        (["evaluation.top_p=0"], "top_p=0.0: give a share"),
        (["evaluation.top_k=-1"], "top_k=-1: give a number"),
        (["evaluation.min_p=1"], "min_p=1.0: give a share"),
        (["evaluation.max_new_tokens=0"], "max_new_tokens=0: a completion needs room"),
        (["evaluation.samples=0"], "samples=0: each prompt needs one"),
        (["model.think_end=''"], "think_end is empty"),
        (["verify_deadline_seconds=0"], "verify_deadline_seconds=0.0: give a positive"),
    ],
)
def test_what_would_be_ignored_or_measured_otherwise_is_refused_before_a_model_is_loaded(overrides, message):
    with pytest.raises(UserError, match=message):
        task(*config.open_foreign(overrides))


def test_the_embedded_limit_is_that_of_its_descendants_alone(tmp_path):
    run = shutil.copytree(TINY, tmp_path / "runs" / "model")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(TINY)}))
    for path in ("embedded:tiny", str(TINY), str(run), str(adapter)):
        assert settings_of(task(f"model.path={path}").config)["max_new_tokens"] == 160
    config_file = run / "config.json"
    config_file.write_text(config_file.read_text().replace('"hidden_size": 128', '"hidden_size": 256'))
    with pytest.raises(UserError, match="is not that of"):
        task(f"model.path={run}")
    for limit in ("evaluation.max_new_tokens=300", "trainer.max_completion_length=300"):
        assert settings_of(task(f"model.path={run}", limit).config)["max_new_tokens"] == 300
    named = ["backend=http", "backend.base_url=http://x", "backend.model=served", "model=qwen3_0.6b"]
    assert settings_of(task(*named).config)["max_new_tokens"] == 4096


def test_how_completions_were_drawn_stands_above_the_result(tmp_path, capsys):
    settings = SETTINGS | {"mode": {"name": "forced", "budget": 8}}
    line = sampling_line(settings)
    assert line == (
        "sampled at temperature 0.5, top_p 0.9, top_k 3, min_p 0.1; at most 12 tokens; 2 samples a problem; seed 7; "
        'thinking ends with 4; mode forced at 8 tokens; chat template with {"shout": true}'
    )
    assert sampling_line(settings | {"temperature": 0.0}).startswith("greedy; at most")
    assert sampling_line({}) == ""

    from tests.evaluation.test_metrics import random_rows

    session = Session("run", Path(tmp_path), total_steps=0, active=True, show_progress=False)
    found = Evaluation(random_rows(5, 1, seed=0), SETTINGS)
    session.finish(found, found)
    said = capsys.readouterr().out
    assert "before and after: sampled at temperature 0.5, top_p 0.9" in said
    assert said.index("temperature 0.5") < said.index("accuracy")
