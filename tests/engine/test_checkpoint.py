"""Checkpoints: state comes back as it was, every visible folder is complete, damage is found and named."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save as save_tensors

from concise_rl.engine import checkpoint
from concise_rl.engine.checkpoint import CheckpointError
from concise_rl.engine.state import seal
from concise_rl.methods.history import History

ROOT = Path(__file__).resolve().parents[2]


def same(one: Any, other: Any) -> bool:
    """Equal in type and in every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return repr(one) == repr(other) if isinstance(one, float) else one == other


histories = st.lists(st.tuples(st.text(max_size=3), st.floats(0.5, 1e6, width=32)), max_size=9).map(
    lambda rows: History.empty().record_mean([prompt for prompt, _ in rows], [value for _, value in rows])
)
arrays = hnp.arrays(
    st.sampled_from(["bool", "int8", "int64", "uint32", "uint64", "float16", "float32", "float64"]).map(np.dtype),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays | histories,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(value=values)
@settings(deadline=None, max_examples=60)
def test_state_comes_back_bit_for_bit(tmp_path_factory: Any, value: Any) -> None:
    folder = tmp_path_factory.mktemp("state")
    checkpoint.save_state(folder, {"shaper": value}, {"dict": value, "step": 1.0})
    states, meta = checkpoint.load_state(folder)
    assert same(states, {"shaper": value})
    assert same(meta, {"dict": value, "step": 1.0})


def test_arrays_come_back_writable_and_independent_of_their_layout(tmp_path: Path) -> None:
    grid = np.arange(12.0).reshape(3, 4)
    checkpoint.save_state(tmp_path, {"turned": grid.T[::-1], "big": grid.astype(">f8")}, {})
    states, _ = checkpoint.load_state(tmp_path)
    assert np.array_equal(states["turned"], grid.T[::-1])
    assert np.array_equal(states["big"], grid)
    states["turned"] += 1


@pytest.mark.parametrize("kind", ["record_min", "record_mean"])
def test_a_history_saved_midway_ends_in_the_same_bits(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    steps = [([f"p{n}" for n in rng.integers(0, 400, 200)], rng.gamma(2.0, 300.0, 200) + 1) for _ in range(30)]
    straight, resumed = History.empty(), History.empty()
    for number, (prompts, lengths) in enumerate(steps):
        getattr(straight, kind)(prompts, lengths)
        if number % 7 == 3:
            checkpoint.save_state(tmp_path, {"shaper": (None, resumed)}, {"step": number})
            resumed = checkpoint.load_state(tmp_path)[0]["shaper"][1]
        getattr(resumed, kind)(prompts, lengths)
    assert same(straight.arrays(), resumed.arrays())


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (np.int64(3), r"states\['shaper'\]\[1\]\['x'\] is a int64"),
        ({1: 2}, "is a dict"),
        ({3}, "is a set"),
        (np.array(["text"]), "is a ndarray <U4"),
        (np.ma.masked_array([1.0], [True]), "is a MaskedArray"),
    ],
)
def test_a_state_that_cannot_be_held_is_refused_by_its_place(tmp_path: Path, state: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.save_state(tmp_path, {"shaper": (None, {"x": state})}, {})
    assert list(tmp_path.iterdir()) == []


def tensors_of(weights: bytes) -> bytes:
    return save_tensors({"weights": np.frombuffer(weights, np.uint8)})


def write_checkpoint(
    run_dir: Path, step: int, weights: bytes = b"w" * 5000, ancestor: dict[str, Any] | None = None
) -> Path:
    staging = checkpoint.staging_dir(run_dir) / f"checkpoint-{step}"
    (staging / "nested").mkdir(parents=True)
    (staging / "model.safetensors").write_bytes(tensors_of(weights))
    with zipfile.ZipFile(staging / "nested" / "optimizer.pt", "w") as archive:  # what torch.save writes, outside
        archive.writestr("optimizer/data.pkl", weights[::2])
    history = History.empty().record_min([f"p{n}" for n in range(50)], np.arange(1, 51))
    checkpoint.save_state(staging, {"shaper": (history, {"mu": 0.5})}, {"step": step})
    checkpoint.publish(staging, run_dir / f"checkpoint-{step}", ancestor)
    return run_dir / f"checkpoint-{step}"


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.iterdir())


def test_publish_leaves_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 20)
    assert names(tmp_path) == ["checkpoint-20"]
    assert checkpoint.verify(folder) is None
    assert checkpoint.step_of(folder) == 20
    write_checkpoint(tmp_path, 20, b"other weights")
    assert names(tmp_path) == ["checkpoint-20"]
    assert (folder / "model.safetensors").read_bytes() == tensors_of(b"other weights")
    assert checkpoint.verify(folder) is None


@pytest.mark.parametrize(
    "name", ["model.safetensors", "nested/optimizer.pt", "concise_state.json", "concise_state.safetensors"]
)
@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "replaced by a link"])
def test_harm_to_any_file_is_found_named_and_skipped(tmp_path: Path, name: str, harm: str) -> None:
    good, bad = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    path = bad / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "truncated":
        path.write_bytes(content[:-1])
    elif harm == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "replaced by a link":
        path.symlink_to(good / name)
    reason = checkpoint.verify(bad)
    assert reason is not None
    assert name in reason
    warnings: list[str] = []
    assert checkpoint.newest_complete(tmp_path, warnings.append) == good
    assert len(warnings) == 1
    assert "checkpoint-10" in warnings[0]
    assert reason in warnings[0]


def test_harm_to_the_manifest_is_found_whatever_bit_it_hits(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    path = folder / checkpoint.MANIFEST_FILE
    content = path.read_bytes()
    rng = random.Random(0)
    for place in rng.sample([i for i, byte in enumerate(content) if byte not in b" \n"], 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :])
        assert checkpoint.verify(folder) is not None, place
    path.write_bytes(content[:-20])
    assert "not the JSON that was written" in str(checkpoint.verify(folder))
    path.unlink()
    assert "the save was not finished" in str(checkpoint.verify(folder))
    with pytest.raises(CheckpointError, match="concise_manifest"):
        checkpoint.step_of(folder)


def test_state_files_that_cannot_be_used_are_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    state, arrays_file = folder / "concise_state.json", folder / "concise_state.safetensors"
    text, tensors = state.read_text(), arrays_file.read_bytes()
    for path, content, reason in (
        (state, text.replace('"mu": 0.5', '"mu": 0.6').encode(), "does not match its checksum"),
        (state, text.replace('"format": 2', '"format": 1').encode(), "its format is 1, this concise_rl reads format 2"),
        (state, b"", "not the JSON"),
        (arrays_file, tensors[:-1], "does not match its checksum"),
        (arrays_file, tensors[:-1] + bytes([tensors[-1] ^ 1]), "does not match its checksum"),
    ):
        assert content not in (text.encode(), tensors)
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{path.name}.*{reason}.*resume from another checkpoint"):
            checkpoint.load_state(folder)
        state.write_text(text)
        arrays_file.write_bytes(tensors)
    arrays_file.unlink()
    with pytest.raises(CheckpointError, match=r"concise_state\.safetensors cannot be read \(No such file"):
        checkpoint.load_state(folder)


def test_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    folder = write_checkpoint(tmp_path, 1)
    for name in ("../outside", str(tmp_path / "outside"), "nested/../../outside"):
        body = {"step": 1, "files": {name: {"bytes": 6, "sha256": "0"}}}
        (folder / checkpoint.MANIFEST_FILE).write_bytes(seal(body))
        assert "outside the folder" in str(checkpoint.verify(folder))
    (folder / "linked").symlink_to(tmp_path)
    body = {"step": 1, "files": {"linked/outside": {"bytes": 6, "sha256": "0"}}}
    (folder / checkpoint.MANIFEST_FILE).write_bytes(seal(body))
    assert "symbolic link" in str(checkpoint.verify(folder))

    staging = tmp_path / "written"
    staging.mkdir()
    (staging / "model").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="no regular file"):
        checkpoint.publish(staging, tmp_path / "checkpoint-2")
    assert not (tmp_path / "checkpoint-2").exists()


def test_newest_is_by_step_and_leftovers_are_ignored_then_cleaned(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert checkpoint.newest_complete(tmp_path / "nowhere", warnings.append) is None
    for step in (9, 100, 20):
        write_checkpoint(tmp_path, step)
    leftover = checkpoint.staging_dir(tmp_path) / "checkpoint-200"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    os.rename(tmp_path / "checkpoint-9", tmp_path / ".deleted-checkpoint-9")
    os.rename(tmp_path / "checkpoint-20", tmp_path / ".replaced-checkpoint-20")  # killed between two renames
    assert checkpoint.newest_complete(tmp_path, warnings.append) == tmp_path / "checkpoint-100"
    assert warnings == []
    checkpoint.clean_staging(tmp_path)
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-20"]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_anew(tmp_path: Path) -> None:
    for step in (1, 2):
        (write_checkpoint(tmp_path, step) / "concise_state.json").unlink()
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match=r"not one of its 2 checkpoints can be used: .* overwrite=true"):
        checkpoint.newest_complete(tmp_path, warnings.append)
    assert len(warnings) == 2


def test_rotation_counts_complete_checkpoints_only(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11, 12):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-12" / "model.safetensors").unlink()
    checkpoint.rotate(tmp_path, keep=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-11", "checkpoint-12"]
    checkpoint.rotate(tmp_path, keep=1)
    assert names(tmp_path) == ["checkpoint-11", "checkpoint-12"]
    checkpoint.rotate(tmp_path, keep=1)
    assert names(tmp_path) == ["checkpoint-11", "checkpoint-12"]
    with pytest.raises(CheckpointError, match="save_total_limit=0"):
        checkpoint.rotate(tmp_path, keep=0)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    script = "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n" + code
    paths = [str(ROOT), str(ROOT / "tests")]
    command = [sys.executable, "-c", script, *paths, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


PUBLISH_FOR_EVER = """
import os
from pathlib import Path
from concise_rl.engine import checkpoint
run_dir, step = Path(sys.argv[3]), int(sys.argv[4])
while True:
    for repeat in range(1 + step % 2):                      # every other step is published twice
        staging = checkpoint.staging_dir(run_dir) / f"checkpoint-{step}"
        (staging / "nested").mkdir(parents=True, exist_ok=True)
        for name in ("a", "b", "nested/c"):
            (staging / name).write_bytes(os.urandom(100_000))
        checkpoint.save_state(staging, {}, {})
        checkpoint.publish(staging, run_dir / f"checkpoint-{step}")
    print(step, flush=True)
    checkpoint.rotate(run_dir, keep=3)
    step += 1
"""


def test_killed_at_any_moment_every_visible_checkpoint_is_complete(tmp_path: Path) -> None:
    rng = random.Random(1)
    step = 0
    for _ in range(8):
        process = child(PUBLISH_FOR_EVER, tmp_path, step + 1)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rng.randint(1, 4))]
        time.sleep(rng.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
        lines += process.stdout.readlines()
        process.stdout.close()

        for folder in tmp_path.glob("checkpoint-*"):
            assert checkpoint.verify(folder) is None, (folder, lines)
        checkpoint.clean_staging(tmp_path)
        warnings: list[str] = []
        newest = checkpoint.newest_complete(tmp_path, warnings.append)
        assert newest is not None
        assert checkpoint.step_of(newest) >= int(lines[-1])  # what was said to be saved is there
        assert checkpoint.step_of(newest) > step
        assert warnings == []
        assert all(name.startswith("checkpoint-") for name in names(tmp_path))
        step = checkpoint.step_of(newest)


SAVE_UNDER_A_LIMIT = """
import resource
from pathlib import Path
from tests.engine.test_checkpoint import write_checkpoint
from concise_rl.engine.checkpoint import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))       # the operating system refuses longer files
try:
    write_checkpoint(Path(sys.argv[3]), 2, b"small")
except CheckpointError as error:
    print("refused:", error)
"""


def test_a_write_that_the_system_refuses_leaves_earlier_checkpoints_intact(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path, 1)
    said, _ = child(SAVE_UNDER_A_LIMIT, tmp_path).communicate(timeout=120)
    assert said.startswith("refused:"), said
    assert "File too large" in said
    assert "saved before are intact" in said
    assert checkpoint.newest_complete(tmp_path, pytest.fail) == first


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "No space left on device.*free some space"), (errno.EROFS, "Read-only.*make it writable")],
)
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_disk_errors_name_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, remedy: str
) -> None:
    first = write_checkpoint(tmp_path, 1)

    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(CheckpointError, match=remedy):
            write_checkpoint(tmp_path, 2)
    assert checkpoint.newest_complete(tmp_path, pytest.fail) == first


def test_a_full_disk_is_recognised_in_other_libraries_errors_and_bugs_pass(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="free some space"), checkpoint.saving(tmp_path / "checkpoint-1"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(RuntimeError, match="a bug"), checkpoint.saving(tmp_path / "checkpoint-1"):
        raise RuntimeError("a bug")


def reseal(folder: Path) -> None:
    """Seal the folder as it is now: what a manifest proves is that nothing changed since."""
    step, unsealed = checkpoint.step_of(folder), folder.with_name("unsealed")
    os.rename(folder, unsealed)
    checkpoint.publish(unsealed, folder.with_name(f"checkpoint-{step}"))


DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        *((name, b"PK half a file", "torch.save") for name in ("optimizer.pt", "scheduler.pt", "scaler.pt")),
        ("rng_state.pth", b"", "torch.save"),
        ("model.safetensors", b"\x10" + bytes(40), "safetensors"),
        ("concise_state.safetensors", b"\x10" + bytes(40), "safetensors"),
        ("model.safetensors", len(DEEP).to_bytes(8, "little") + DEEP.encode(), "safetensors"),
        ("trainer_state.json", b'{"global_step": ', "not JSON"),
        ("trainer_state.json", DEEP.encode(), "nested too deep"),
        ("concise_state.json", DEEP.encode(), "nested too deep"),
    ],
)
def test_a_file_that_was_sealed_torn_is_named_and_the_next_older_checkpoint_taken(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    good, bad = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    (bad / name).write_bytes(content)
    reseal(bad)
    warnings: list[str] = []
    assert checkpoint.newest_complete(tmp_path, warnings.append) == good
    assert f"checkpoint-10 is skipped: {name} " in warnings[0]
    assert reason in warnings[0]


def test_a_deep_state_and_a_deep_manifest_are_damage_and_no_traceback(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    deep: Any = 0
    for _ in range(400):
        deep = [deep]
    checkpoint.save_state(folder, {"shaper": deep}, {})
    assert checkpoint.load_state(folder)[0]["shaper"] == deep
    (folder / "concise_manifest.json").write_text(DEEP)
    assert "not the JSON that was written" in str(checkpoint.verify(folder))


def test_a_manifest_that_lists_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 1)
    (folder / checkpoint.MANIFEST_FILE).write_bytes(seal({"step": 1, "files": {}}))
    assert "lists 0 files and no concise_state.json" in str(checkpoint.verify(folder))


def test_a_checkpoint_of_a_branch_that_was_left_is_skipped(tmp_path: Path) -> None:
    four = write_checkpoint(tmp_path, 4)
    six = write_checkpoint(tmp_path, 6, ancestor=checkpoint.identity(four))
    eight = write_checkpoint(tmp_path, 8, ancestor=checkpoint.identity(six))
    assert checkpoint.newest_complete(tmp_path, pytest.fail) == eight
    write_checkpoint(tmp_path, 6, b"another branch", ancestor=checkpoint.identity(four))
    warnings: list[str] = []
    assert checkpoint.newest_complete(tmp_path, warnings.append) == six
    assert "checkpoint-8 is skipped: it grew from another checkpoint-6 than the one that is here" in warnings[0]
    checkpoint.rotate(tmp_path, keep=2, newest=6)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-6", "checkpoint-8"]
    checkpoint.rotate(tmp_path, keep=1, newest=6)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-8"]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Error while serializing: I/O error: File too large (os error 27)", r"File too large\): raise the limit"),
        ("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534", "could not be written whole"),
        (
            "[enforce fail at inline_container.cc:747] . open file failed with strerror: No space left on device",
            "inodes",
        ),
        ("Parent directory /tmp/gone does not exist.", "its folder was removed; bring it back and go on with resume"),
    ],
)
def test_what_torch_and_safetensors_say_of_a_failed_write_is_one_line_with_a_remedy(
    tmp_path: Path, said: str, remedy: str
) -> None:
    with pytest.raises(CheckpointError, match=remedy), checkpoint.saving(tmp_path / "checkpoint-1"):
        raise RuntimeError(said)
