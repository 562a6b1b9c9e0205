"""What a model, a data set, a run folder or a server may have written stays data: docs/security.md, claim by claim.

The fuzz campaign is `benchmarks/fuzz.py`; here are its corpus once, a hypothesis-driven version of its step, and proof
that it would notice.
"""

from __future__ import annotations

import ast
import csv
import inspect
import io
import json
import os
import random
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
import sympy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.firing import GROUP_SIZE, Range, Tally
from benchmarks.fuzz import guarded
from benchmarks.hostile import CORPUS, GOLD, PIECES, Hostile
from benchmarks.leaks import page_faults
from concise_rl.cli import main
from concise_rl.commands.run_folder import prepare
from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.evaluation.store import Store
from concise_rl.files import append_lines, replace_text, replacing
from concise_rl.methods.history import History
from concise_rl.reporting.compare import compare
from concise_rl.reporting.evaluations import detail_tables
from concise_rl.reporting.progress import Progress
from concise_rl.reporting.replay_table import write_csv
from concise_rl.reporting.run_log import RunLog, read_rollouts, read_summary
from concise_rl.verifiers import VERIFIERS, MathAnswer, Verdict

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "concise_rl").rglob("*.py"))


# --- the campaign, short ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def firing():
    return Range(Tally(), deadline_seconds=30.0)  # a busy machine must not look like a hang


def fire(firing, texts, folder, seed=0):
    """Completions in whole groups through one step."""
    texts = [*texts, *[""] * (-len(texts) % GROUP_SIZE)]
    judged = firing.step(0, texts, Hostile(random.Random(seed)), RunLog(folder))
    assert firing.tally.failures == []
    assert firing.tally.late == 0
    return judged


def test_the_corpus_hurts_nothing(firing, tmp_path):
    judged = fire(firing, CORPUS, tmp_path / "run")
    assert [text for text, _, _ in judged] == next(read_rollouts(tmp_path / "run")).completions
    firing.pages(tmp_path / "pages", [*judged, *judged[: -len(judged) % (2 * GROUP_SIZE)]],
                 Hostile(random.Random(0)))  # fmt: skip
    assert firing.tally.failures == []
    assert not any(counts["killed"] or counts["died"] for counts in firing.tally.outcomes.values())


def test_a_number_too_large_to_be_written_is_wrong(monkeypatch):
    """SymPy, which asks its questions in random order, overflows over a tower or computes until it is killed."""

    def overflow(_):
        raise OverflowError("too many digits in integer")

    with monkeypatch.context() as patch:
        patch.setattr(sympy.Pow, "_eval_evalf", overflow, raising=True)
        patch.setattr(sympy.Pow, "is_real", property(overflow))
        verdict = MathAnswer()(r"\boxed{9^{9^9}}", "7")
    assert (verdict.scorable, verdict.correct) == (True, False)
    huge = r"10^{400} + 7"
    assert MathAnswer()(r"\boxed{10^{400}+7}", huge).correct
    assert not MathAnswer(relative_tolerance=0.01)(r"\boxed{5}", huge).correct


ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Mn"]))
TEXTS = ANY_TEXT | st.sampled_from(CORPUS) | st.lists(st.sampled_from(PIECES), max_size=20).map("".join)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8), seed=st.integers(0, 99))
def test_any_completions_hurt_nothing(firing, tmp_path, texts, seed):
    fire(firing, texts, tmp_path / "run", seed)


def test_the_campaign_is_determined_by_its_seed_and_notices_what_it_looks_for():
    def drawn(seed):
        source = Hostile(random.Random(seed))
        return [source.text() for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    clean = "<html><p>7</p><script type='application/json'>{}</script><script>run()</script></html>"
    assert page_faults(clean) == []
    for slip in ("<script>window.hacked = 1</script>", "<img src=x>", "<p onclick=x>", "<!-- -->", "<svg>", "\x1b"):
        assert page_faults(clean.replace("7", slip)), slip
    tally = Tally()
    tally.finite("here", [1.0, None, float("nan")])
    with guarded(tally, "there"):
        raise RuntimeError("boo")
    assert len(tally.failures) == 2


# --- model output is data ---------------------------------------------------------------------------------------------

INNOCENT = {"Integer", "Float", "Rational", "Symbol", "Add", "Mul", "Pow", "evaluate", "False"}
"""All that SymPy's parser may build from the digits, points, operators and parentheses that math-verify hands it."""

_watch = {"on": False}
_seen: list[tuple[str, tuple]] = []


def _hook(event: str, details: tuple) -> None:
    if _watch["on"]:
        _seen.append((event, details))


def test_verifiers_run_nothing_that_a_completion_says(tmp_path):
    sys.addaudithook(_hook)
    marker = tmp_path / "owned"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    attacks = [shell.format(code) for shell in (
        "{}", "answer: {}", r"\boxed{{{}}}", "$${}$$", "The final answer is {}. I hope it is correct.", "answer: 1+{}",
        r"\boxed{{1+{}}}", r"\boxed{{\text{{{}}}}}", '{{"rationale": {}, "action": {{}}}}', "#### {}", "answer: (1){}",
    )]  # fmt: skip
    attacks += ["answer: 1+1*(2)**3-(4)/5^6", "1/2+3", "answer: 7(7)(7)", "answer: (1).real", "answer: 1.e+1"]
    for verifier in [kind() for kind in VERIFIERS.values()]:
        getattr(verifier, "warm_up", lambda: None)()
        for gold in GOLD[next(name for name, kind in VERIFIERS.items() if type(verifier) is kind)]:
            for attack in attacks:
                _watch["on"] = True
                verdict = verifier(attack, gold)
                _watch["on"] = False
                assert isinstance(verdict, Verdict)
    assert not marker.exists()
    compiled = [source for event, (source, *_) in _seen if event == "compile" and source is not None]
    assert compiled, "math-verify evaluates sums, so the hook must have seen some"
    texts = {ast.unparse(s) if isinstance(s, ast.AST) else s.decode() if isinstance(s, bytes) else s for s in compiled}
    for text in texts - {"from sympy import *"}:  # how SymPy's parser fills its names
        assert set(re.findall(r"[^\W\d]\w*", text)) <= INNOCENT, text
    forbidden = re.compile(
        r"os\.(system|exec|fork|posix_spawn|remove|rename|mkdir)|subprocess|socket|shutil|ctypes\.dl"
    )
    assert [event for event, _ in _seen if forbidden.match(event)] == []
    assert [d for event, d in _seen if event == "open" and str(d[1] or "r").strip("rbt")] == [], "opened for writing"


def test_no_text_is_evaluated_and_no_pickle_read_by_this_package():
    """`eval` and its kin are nowhere; the one pickle is what a process sends its own workers."""
    banned = {"eval", "exec", "compile", "__import__", "input"}
    attributes = {("os", "system"), ("os", "popen"), ("torch", "load"), ("np", "load"), ("yaml", "load")}
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func
                if isinstance(called, ast.Name) and called.id in banned:
                    found.append((path.name, called.id))
                if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                    name = called.value.id, called.attr
                    if name in attributes or (name[0] in ("pickle", "marshal", "shelve") and name[1] != "dumps"):
                        found.append((path.name, ".".join(name)))
                found += [(path.name, k.arg) for k in node.keywords if k.arg == "shell"]
    assert found == [("worker.py", "pickle.loads")]
    assert not [path for path in SOURCES if "training_args.bin" in path.read_text()]


def test_transformers_unpickles_no_objects_of_a_checkpoint(tmp_path):
    """training_args.bin is written and never read; all other `torch.load` of the trainer take tensors alone."""
    import transformers.trainer

    source = inspect.getsource(transformers.trainer)
    uses = [line.strip() for line in source.splitlines() if "TRAINING_ARGS_NAME" in line]
    assert all(line.startswith(("TRAINING_ARGS_NAME =", "torch.save(self.args")) for line in uses), uses
    for start in (match.end() for match in re.finditer(r"torch\.load\(", source)):
        assert "weights_only=True" in source[start : start + 300].split("\n\n")[0]

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    torch.save(Evil(), tmp_path / "rng_state.pth")
    trainer = transformers.Trainer(
        torch.nn.Linear(1, 1), transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    )
    with pytest.raises(Exception, match="Weights only load failed"):
        trainer._load_rng_state(str(tmp_path))
    assert not (tmp_path / "owned").exists()


def test_remote_code_is_off_in_every_recipe():
    from concise_rl.commands.config import compose

    assert compose([]).model.trust_remote_code is False
    texts = [path.read_text() for path in (ROOT / "recipes").rglob("*.yaml")]
    assert len(texts) > 40
    assert not [text for text in texts if "trust_remote_code" in text]


# --- files that others wrote ------------------------------------------------------------------------------------------


def rows(count=4, **changes):
    made = {"reference": "7", "completion": "7", "length": 2, "think_length": 1, "truncated": False,
            "verdict": Verdict.of(True), "columns": {}}  # fmt: skip
    return [EvaluationRow(prompt_id=f"{p}", sample=0, prompt=f"{p}", **{**made, **changes}) for p in range(count)]


def stored(folder, settings=None, summary=None, **changes):
    folder.mkdir(parents=True)
    Evaluation(rows(**changes), settings or {}).save(folder / "evaluation.jsonl")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_no_name_in_an_evaluation_leads_a_figure_out_of_its_folder(tmp_path):
    out = "../../escaped"
    point = {"accuracy": 0.5, "accuracy_interval": [0, 1], "mean_tokens": 2.0}
    curve = {"mode": out, "points": [{"budget": 1, **point}, {"budget": 2, **point}]}
    for k in range(2):
        settings = {"mode": {"name": out, "budget": k + 1}}
        stored(tmp_path / "in" / f"{k}" / "x", settings, {"benchmark": out, "budget_curve": curve})
        stored(tmp_path / "in" / f"{k}" / "y")
    before = set(tmp_path.rglob("*"))
    made = compare([tmp_path / "in" / "0", tmp_path / "in" / "1"], tmp_path / "page.html")
    new = set(tmp_path.rglob("*")) - before
    assert any("budget_.._.._escaped" in path.name for path in made.figures)
    assert {path for path in new if path.is_file()} == {tmp_path / f"page{end}" for end in (".html", ".md", ".csv")} | {
        tmp_path / "page-figures" / path.name for path in made.figures
    }


def test_a_run_writes_through_no_link(tmp_path):
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("kept")
    for name in ("metrics.jsonl", "training.png", "model", "wandb"):
        run = tmp_path / f"run-{name}"
        run.mkdir()
        (run / name).symlink_to(elsewhere)
        with pytest.raises(UserError, match=f"{name} is a symbolic link"):
            prepare(run, resume="auto", overwrite=False)
    assert elsewhere.read_text() == "kept"


BOMB = "[" * 100_000


def test_json_that_is_too_deep_or_no_text_is_named_not_a_crash(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    for name, read in (
        ("summary.json", read_summary),
        ("rollouts.jsonl", lambda folder: list(read_rollouts(folder))),
        ("evaluation.jsonl", lambda folder: Evaluation.load(folder / "evaluation.jsonl")),
    ):
        for content in (BOMB.encode(), b'{"step": ' + b"1" * 5000 + b"}", b"\xff\xfe\xff"):
            (tmp_path / name).write_bytes(content + b"\n")
            with pytest.raises(DataError, match=name):
                read(tmp_path)


def test_ids_of_any_text_have_a_history():
    history = History.empty().record_min(["\ud800", "../x", "\x00"], [3, 4, 5])
    assert history.lookup(["\x00", "\ud800"])[0].tolist() == [5.0, 3.0]


# --- what people open -------------------------------------------------------------------------------------------------


def test_a_spreadsheet_runs_nothing_of_a_table(tmp_path):
    formulas = ["=cmd|' /C calc'!A1", "+7", "-7", "@SUM(1)", "\t=1", "\ud800\x1b"]
    write_csv([{"method": text, "credit": -0.5} for text in formulas], tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["method"] for row in read] == [f"'{text}" for text in formulas[:-1]] + ["\\xd800\\x1b"]
    assert {row["credit"] for row in read} == {"-0.5"}, "a number stays a number"
    found = [stored(tmp_path / name, columns={"difficulty": "=1+1"}) for name in ("=2+2", "b")]
    table = compare(found, tmp_path / "page.html").table.read_text()
    assert {cell[:1] for line in csv.reader(io.StringIO(table)) for cell in line} & {"=", "+", "@"} == set()


def test_no_text_steers_the_terminal(tmp_path, capsys):
    title = "\x1b]0;owned\x07"
    summary = Evaluation(rows(columns={"difficulty": title})).summary()
    out = io.StringIO()
    for table in detail_tables("x", summary):
        Console(file=out, width=200).print(table)
    assert "\\x1b]0;owned\\x07" in out.getvalue()
    found = [stored(tmp_path / name, summary={"benchmark": title}) for name in "ab"]
    main(["compare", *map(str, found), "--out", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit):
        main(["compare", str(found[0]), str(tmp_path / title)])
    said = capsys.readouterr()
    assert "\\x1b]0;owned\\x07" in said.out
    assert "\\x1b]0;owned\\x07" in said.err
    assert not set("\x1b\x07") & set(out.getvalue() + said.out + said.err)


def test_no_exception_of_a_library_steers_the_terminal(tmp_path):
    code = "from concise_rl.cli import main, COMMANDS\ndef fail(_): raise RuntimeError('\\x1b[2Jgone')\n"
    code += "COMMANDS['fit'] = fail\nmain(['fit'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "RuntimeError: \\x1b[2Jgone" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_warning_of_a_checkpoint_steers_no_terminal():
    out = io.StringIO()
    Progress(3, "run", enabled=False, console=Console(file=out)).message("warning: checkpoint \x1b]0;owned\x07 torn")
    assert out.getvalue() == "warning: checkpoint \\x1b]0;owned\\x07 torn\n"


def test_files_are_written_through_no_link(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    os.link(precious, tmp_path / "metrics.jsonl")
    (tmp_path / "store.jsonl").symlink_to(precious)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, kind in (("metrics", "under 2 names"), ("store", "a symbolic link"), ("pipe", "no plain file")):
        for write in (lambda p: append_lines(p, "x\n", go_on_with=""), lambda p: Store(p, {"seed": 1})):
            with pytest.raises(UserError, match=rf"{name}\.jsonl is .*{kind}"):
                write(tmp_path / f"{name}.jsonl")
    with pytest.raises(UserError, match="under 2 names"):
        RunLog(tmp_path)
    assert precious.read_text() == "kept"

    # Were its name known beforehand, a link planted there would still not be followed.
    monkeypatch.setattr(secrets, "token_hex", lambda n: "guessed")
    (tmp_path / ".config.json.guessed.unfinished").symlink_to(precious)
    with pytest.raises(UserError, match="cannot write"):
        replace_text(tmp_path / "config.json", "{}")
    assert precious.read_text() == "kept"
    with pytest.raises(UserError, match="cannot write"), replacing(tmp_path / "config.json"):
        pass
    assert (tmp_path / ".config.json.guessed.unfinished").is_symlink(), "what is not ours stays"
    with pytest.raises(UserError, match="cannot write"), replacing(precious / "config.json"):
        pass
    monkeypatch.undo()
    replace_text(tmp_path / "config.json", "{}")
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == precious.stat().st_mode & 0o777


def test_no_script_of_a_data_set_runs(tmp_path):
    import datasets

    script, mark = tmp_path / "rows.py", tmp_path / "ran"
    script.write_text(f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(RuntimeError, match="scripts are no longer supported"):
        datasets.load_dataset(str(script))
    assert not mark.exists()


def test_a_run_of_the_embedded_model_asks_nobody(tmp_path):
    """Evaluation, training, saving, report: no name is looked up and no connection made."""
    code = (
        "import sys\n"
        "def hear(event, details):\n"
        "    if event in ('socket.getaddrinfo', 'socket.gethostbyname', 'socket.connect', 'socket.sendto'):\n"
        "        raise SystemExit(f'asked: {event} {details}')\n"
        "sys.addaudithook(hear)\n"
        "from concise_rl.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    small = ["trainer.max_steps=1", "trainer.per_device_train_batch_size=8", "trainer.max_completion_length=24"]
    command = [sys.executable, "-c", code, "train", *small, "evaluation.problems=2", f"run.dir={tmp_path / 'run'}"]
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "summary.json").exists()
