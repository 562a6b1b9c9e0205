"""The walk of docs/architecture.md is the way that a row of a run takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

ENTERED = """
import sys
from pathlib import Path
import concise_rl
from concise_rl.commands import train

home, entered = str(Path(concise_rl.__file__).parent) + "/", {}

def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(home) and code.co_name not in ("<module>", "__init__"):
        entered.setdefault(code.co_filename.removeprefix(home))

sys.setprofile(note)
try:
    train.main()
finally:
    sys.setprofile(None)
print("entered", *entered)
"""


def test_a_row_enters_every_file_of_its_walk(tmp_path):
    rows = [{"question": f"{a} + {b} = ?", "answer": str(a + b)} for a in range(4) for b in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["method=hapo", "filter.zero_variance={}", "data=local", f"data.path={tmp_path}/rows.jsonl"]
    run += ["data.verifier=math_answer", "trainer.max_steps=1", "trainer.save_steps=1", "evaluation.problems=0"]
    run += ["trainer.per_device_train_batch_size=16", f"run.dir={tmp_path}/run", "run.progress=false"]
    done = subprocess.run([sys.executable, "-c", ENTERED, *run], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    entered = done.stdout.rpartition("entered ")[2].split()
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## The walk of one row")[2]
    walk = re.findall(r"^\| (\d+) \| `(\S+)` \|", text, re.MULTILINE)
    assert [int(number) for number, _ in walk] == list(range(1, len(walk) + 1))
    assert 15 < len(walk) <= 25
    missing = [name for _, name in walk if not any(Path(file).match(name) for file in entered)]
    assert not missing
