"""A run that cannot teach says so before a model is loaded, in one line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from concise_rl.batch import COLUMN_PREFIX
from concise_rl.commands import checks, config
from concise_rl.commands.entry import leave_lost_worker
from concise_rl.commands.run_folder import check_not_trained_on, question_key, without_test_problems
from concise_rl.data import Prompt
from concise_rl.engine.resuming import check_window
from concise_rl.errors import DataError, UserError
from concise_rl.model.loading import context_of, load_tokenizer


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.output_dir=/tmp/x", "trainer.output_dir='/tmp/x': the run folder is run.dir"),
        ("trainer.resume_from_checkpoint=x", "a run goes on with resume=auto"),
        ("trainer.model_init_kwargs={a: 1}", "the model is loaded by model"),
        ("trainer.eval_strategy=steps", "a run evaluates before and after training"),
        ("trainer.load_best_model_at_end=true", "evaluation.every=N keeps the best checkpoint"),
        ("trainer.remove_unused_columns=true", "takes away the references"),
        ("trainer.report_to=tensorbord", "trainer.report_to='tensorbord': choose none or of"),
        ("trainer.report_to=mlflow", "use tracking=mlflow, which logs evaluations and completions too"),
        ("trainer.report_to=comet_ml", "needs a package: pip install comet_ml"),
        ("trainer.push_to_hub=true", "needs a token of the hub"),
    ],
)
def test_fields_that_have_no_meaning_here_are_refused(override, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        checks.check_trainer_fields(config.trainer_fields(config.compose([override])))
    checks.check_trainer_fields(config.trainer_fields(config.compose([])))


def test_a_setting_that_nothing_reads_cannot_be_added():
    for added in ("+data=chain_sum", "++evaluation.nonsense=1", "+shaper.hapo.nonsense=1"):
        with pytest.raises(UserError, match=r": \+ adds a setting that nothing reads; write "):
            config.compose([added], "eval")
    assert config.compose(["+trainer.max_completion_length=7"], "eval").trainer.max_completion_length == 7
    for command, group in (("eval", "data=chain_sum"), ("train", "benchmark=gsm8k")):
        with pytest.raises(UserError, match=r"^(data|benchmark) is no setting of this command"):
            config.compose([group], command)


def test_a_verifier_is_chosen_where_the_data_are():
    with pytest.raises(
        UserError, match=r"verifier='number': verifier holds the fields .* choose one with data.verifier"
    ):
        config.verifier_of(config.compose(["verifier=number"]))


def prompts(n: int, **columns: object) -> list[Prompt]:
    return [Prompt.of(f"{k}+1=", str(k + 1), **columns) for k in range(n)]


def test_fewer_prompts_than_a_generation_draws_are_refused():
    args = SimpleNamespace(generation_batch_size=64, num_generations=8)
    checks.check_generation(args, prompts(8))
    with pytest.raises(DataError, match="7 training prompts, and one generation draws 8 different ones"):
        checks.check_generation(args, prompts(7))


@pytest.mark.parametrize(
    ("method", "rows", "limit", "think_end", "message"),
    [
        ("brpo", 6, 160, "</think>", r"num_generations=6 is no multiple of S \* A = 4"),
        ("brpo", 8, 4, "</think>", "4 budgets and an answer do not fit into trainer.max_completion_length=4"),
        ("jet", 2, 160, "</think>", "num_generations=2 leaves no early exit"),
        ("hbpo", 6, 160, "</think>", "num_generations=6 rows do not make 4 subgroups"),
        ("adaptthink", 2, 160, "[/THINK]", r"the tokenizer has no single token '\[/THINK\]'"),
        ("pear", 8, 160, "[/THINK]", r"needs answer_entropy, think_entropy, but the tokenizer has no single token"),
    ],
)
def test_groups_and_tags_that_a_method_cannot_use_are_refused_before_a_model_is_loaded(
    method, rows, limit, think_end, message
):
    composed = config.compose([f"method={method}"])
    tokenizer, method = load_tokenizer(composed.model), config.method_of(composed)
    args = SimpleNamespace(num_generations=rows, max_completion_length=limit)
    with pytest.raises(UserError, match=message):
        checks.check_tokens(method, args, tokenizer, think_end)
    checks.check_tokens(method, SimpleNamespace(num_generations=8, max_completion_length=160), tokenizer, "</think>")


def test_a_column_that_the_method_needs_is_missed_before_training():
    checks.check_columns(frozenset({COLUMN_PREFIX + "difficulty", "entropies"}), prompts(2, difficulty=1))
    rows = [*prompts(2, difficulty=1), Prompt.of("7+7=", "14")]
    with pytest.raises(DataError, match=r"needs the column 'difficulty', the prompt '7\+7=' \(id [0-9a-f]+\) has \[\]"):
        checks.check_columns(frozenset({COLUMN_PREFIX + "difficulty"}), rows)


def test_a_value_that_the_method_cannot_use_is_found_before_training():
    for method, good, bad, message in (
        ("gui_g1", {"difficulty": 4}, {"difficulty": 1}, "'difficulty' of prompt .* is 1: outside"),
        ("gui_g1", {"difficulty": 4}, {"difficulty": "hard"}, "'hard': DifficultyWeighted needs a number"),
        ("l1_exact", {"num_tokens": 100}, {"num_tokens": "many"}, "num_tokens.* is 'many'"),
    ):
        made = config.method_of(config.compose([f"method={method}"]))
        checks.check_column_values(made, prompts(3, **good))
        with pytest.raises(DataError, match=message):
            checks.check_column_values(made, [*prompts(2, **good), Prompt.of("9+1=", "10", **bad)])
    checks.check_column_values(config.method_of(config.compose(["method=hapo"])), prompts(2))


def test_prompts_that_do_not_fit_the_context_are_named():
    spec = config.compose([]).model
    tokenizer, context = load_tokenizer(spec), context_of(spec)
    long = Prompt.of("+".join("1" * 5 for _ in range(100)) + "=", "1")
    rows = [*prompts(3), long]
    checks.check_lengths(rows[:3], tokenizer, None, context=context, limit=100)
    with pytest.raises(DataError, match=rf"1 of 4 prompts and trainer.max_completion_length=.* \(id {long.id}\), has"):
        checks.check_lengths(rows, tokenizer, None, context=context, limit=context - 20)
    checks.check_lengths(rows, tokenizer, None, context=None, limit=10**9)


def test_a_template_that_waits_for_a_training_prompt_is_found_before_a_model_is_loaded():
    tokenizer = load_tokenizer(config.compose([]).model)
    plain = [prompts(1)[0]]
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    checks.check_lengths(plain, tokenizer, None, context=100, limit=90)
    with pytest.raises(DataError, match="has 4: drop such prompts"):
        checks.check_lengths(plain, tokenizer, None, context=100, limit=97)
    tokenizer.chat_template = "{% if messages[0]['content'] == '2+1=' %}{{ 'a' * 3000000000 }}{% endif %}"
    with pytest.raises(UserError, match=r"the chat template of .* takes more than 512 MiB of memory \(at '2\+1='\)"):
        checks.check_lengths(prompts(3), tokenizer, None, context=100, limit=10)


def test_a_window_is_checked_on_the_arguments_alone():
    args = SimpleNamespace(
        steps_per_generation=4, num_iterations=1, gradient_accumulation_steps=2, save_strategy="steps", save_steps=3
    )
    with pytest.raises(UserError, match="save_steps=3 is no multiple of the 2 optimizer steps"):
        check_window(args)


def test_test_problems_are_not_trained_on_and_a_benchmark_of_trained_problems_is_refused(tmp_path):
    told: list[str] = []
    train = prompts(5)
    assert without_test_problems(train, [], told.append) == train
    other_spelling = Prompt.of("3+1=", "#### 4")  # another reference, the same question
    assert without_test_problems(train, [other_spelling], told.append) == [*train[:3], train[4]]
    assert told == ["1 of 5 training problems are test problems too, and are left out"]
    with pytest.raises(DataError, match="every training problem is a test problem too"):
        without_test_problems(train, train, told.append)

    (tmp_path / "trained_on.json").write_text(json.dumps({"questions": [question_key(p) for p in train]}))
    (tmp_path / "model").mkdir()
    for path in (tmp_path, tmp_path / "model", tmp_path / "checkpoint-4"):
        with pytest.raises(DataError, match=r"was trained on 1 of the 2 problems of sums, the first is '3\+1='"):
            check_not_trained_on(str(path), "sums", [Prompt.of("new", "1"), other_spelling])
    check_not_trained_on(str(tmp_path), "sums", [Prompt.of("new", "1")])
    check_not_trained_on("some/hub-id", "sums", train)


def test_a_data_loader_worker_that_is_gone_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        leave_lost_worker(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: a data loader worker died (DataLoader worker (pid 7) is killed")
    leave_lost_worker(RuntimeError("another"))


def test_the_recipe_for_math_trains_on_no_test_split():
    data = config.compose(["data=math500"]).data
    assert data.train_split == "train"
    assert data.test_split == "test"


@pytest.mark.parametrize("run", ["gpu1", "gpu8", "gpu8_server"])
def test_gpu_recipes_take_steps_enough_for_a_history(run):
    trainer = config.compose([f"run={run}", "model=qwen3_1.7b", "data=gsm8k"]).trainer
    ranks = {"gpu1": 1, "gpu8": 8, "gpu8_server": 4}[run]
    rows = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps * ranks
    visits = trainer.max_steps * rows / trainer.num_generations / 7473
    assert visits >= 3
