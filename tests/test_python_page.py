"""docs/python.md names every public name, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import concise_rl
from concise_rl.methods.registry import SHELVES, components

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()


def test_every_public_name_is_on_the_page_and_imports():
    table = PAGE[PAGE.index("## Names") :]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    assert named == set(concise_rl.__all__)
    for name in concise_rl.__all__:
        assert getattr(concise_rl, name) is not None, name


def test_a_component_goes_by_its_class():
    from concise_rl import GroupRelative, Hapo
    from concise_rl.methods import Hapo as Same

    assert Hapo is Same
    assert GroupRelative().scale == "group"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    for source in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(source, found)
    assert len(Path("runs/python/metrics.jsonl").read_text().splitlines()) == 2
    assert found["trainer"].state.global_step == 1
    assert found["result"].reward.tolist()[0] > 1 - 1e-9
    assert len(found["states"]["shaper.hapo"]) == 1


def test_the_readme_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, ends = concise_rl.ConciseTrainer.train, []
    monkeypatch.setattr(concise_rl.ConciseTrainer, "train", lambda trainer: ends.append(train(trainer)))
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (source,) = re.findall(r"```python\n(from datasets.*?)```", readme, flags=re.DOTALL)
    exec(source, {})
    assert ends[0].global_step == 2


def test_every_public_name_and_component_has_a_docstring_of_its_own():
    public = [getattr(concise_rl, name) for name in concise_rl.__all__ if name != "__version__"]
    found = public + [cls for kind in SHELVES for cls in components(kind).values()]
    for item in found:
        text = vars(item).get("__doc__") if isinstance(item, type) else item.__doc__
        # A dataclass without one gets its signature.
        assert text, item
        assert not text.startswith(f"{item.__name__}("), item
