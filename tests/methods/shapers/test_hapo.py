"""HAPO by hand, and against an independent re-derivation of the released code from its description."""

from __future__ import annotations

import math

import pytest
import torch
from omegaconf import OmegaConf

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import Hapo
from concise_rl.methods.history import History

H = 100


def length_rewards(shaper: Hapo, lengths: list[int], correct: bool) -> list[float]:
    """f for a prompt whose history is 100 tokens."""
    batch = RolloutBatch.of(
        prompt_keys=["q"], group_size=len(lengths), lengths=lengths, correct=[correct] * len(lengths)
    )
    history = History.empty().record_min(["q"], [H])
    shaped, _ = shaper(batch, batch.task_reward, history)
    return (shaped.value - batch.task_reward).tolist()


def step(shaper: Hapo, history: History, rows_of: dict[str, list[tuple[int, bool]]], **others) -> torch.Tensor:
    """Shape one step given as (length, correct) a row; the history moves in place."""
    rows = [row for group in rows_of.values() for row in group]
    batch = RolloutBatch.of(
        prompt_keys=[prompt_id.rstrip("'") for prompt_id in rows_of],
        group_size=len(rows) // len(rows_of),
        lengths=[length for length, _ in rows],
        correct=[correct for _, correct in rows],
        **others,
    )
    return shaper(batch, batch.task_reward, history)[0].value


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_cosine_by_hand(variant):
    shaper = Hapo(variant=variant)
    right = length_rewards(shaper, [1, 50, 100, 149, 150, 199, 200, 5000], correct=True)
    assert right == pytest.approx(
        [math.cos(math.pi / 200), math.sqrt(0.5), 0.0, math.cos(1.49 * math.pi / 2), -0.7, -0.7, -0.7, -0.7]
    )
    wrong = length_rewards(shaper, [1, 50, 100, 150, 199, 200, 5000], correct=False)
    assert wrong == pytest.approx([0, 0, 0, -math.sqrt(0.5), -math.cos(0.01 * math.pi / 2), -1, -1], abs=1e-12)
    assert max(wrong) <= 0


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_linear_by_hand(variant):
    shaper = Hapo(kind="linear", variant=variant)
    # (1 + 0.1) * 100 is a little above 110 in binary, so 110 is still in the band without penalty.
    right = length_rewards(shaper, [0, 50, 99, 100, 109, 110, 130, 180, 181, 400], correct=True)
    assert right == pytest.approx([1, 0.5, 0.01, 0, 0, 0, -0.2, -0.7, -0.7, -0.7])
    assert right[3:6] == [0, 0, 0]
    wrong = length_rewards(shaper, [0, 99, 100, 110, 130, 180, 210, 211, 400], correct=False)
    assert wrong == pytest.approx([0, 0, 0, 0, -0.2, -0.7, -1, -1, -1])


def test_a_step_is_scored_against_the_steps_before_it_and_then_recorded():
    shaper, history = Hapo(), History.empty()
    first = step(shaper, history, {"q": [(100, True), (40, False), (80, True), (60, True)]})
    assert first.tolist() == [1, 0, 1, 1]  # unknown: no length reward, and none from siblings
    assert history.lookup(["q"])[0] == 60
    second = step(shaper, history, {"q": [(30, True), (60, True), (120, True), (120, False)]})
    assert second.tolist() == pytest.approx([1 + math.sqrt(0.5), 1, 0.3, -1])
    assert history.lookup(["q"])[0] == 30


def test_only_right_and_scorable_rows_enter_history():
    shaper, history = Hapo(), History.empty()
    scorable = torch.tensor([True, False, True, True])
    step(shaper, history, {"q": [(10, False), (5, True), (0, True), (70, True)]}, scorable=scorable)
    values, counts = history.lookup(["q"])
    assert (values[0], counts[0]) == (70, 1)
    step(shaper, history, {"never right": [(10, False), (20, False)]})
    assert len(history) == 1


def test_a_prompt_standing_twice_is_scored_alike_and_recorded_from_both():
    shaper, history = Hapo(), History.empty().record_min(["q"], [100])
    rewards = step(shaper, history, {"q": [(50, True), (200, True)], "q'": [(20, True), (50, True)]})
    assert rewards[0] == rewards[3] == pytest.approx(1 + math.sqrt(0.5))
    assert history.lookup(["q"])[0] == 20


def test_mean_history_counts_each_right_row_once_and_exactly():
    shaper, history = Hapo(history="mean"), History.empty()
    step(shaper, history, {"q": [(20, True), (99, False)]})
    step(shaper, history, {"q": [(15, True), (99, False)]})
    assert history.lookup(["q"]) == (17.5, 2)


def test_released_mean_is_cut_to_a_whole_number_and_updated_once_a_completion():
    shaper, history = Hapo(history="mean", variant="code"), History.empty()
    step(shaper, history, {"q": [(20, True)]})
    step(shaper, history, {"q": [(15, True)]})
    assert history.lookup(["q"]) == (17, 2)  # 17.5, cut

    history = History.empty()
    step(shaper, history, {"q": [(20, True), (99, False)]})
    assert history.lookup(["q"]) == (20, 2)  # one right row counts for both completions
    step(shaper, history, {"q": [(14, True), (99, False)]})
    # 20 * 2/3 + 14 * 1/3 = 18, then 18 * 3/4 + 14 * 1/4 = 17 (the true mean is 17 too, its count would be 2)
    assert history.lookup(["q"]) == (17, 4)


def test_released_code_forgets_a_prompt_that_was_answered_right_without_a_token():
    released, exact = Hapo(variant="code"), Hapo()
    for shaper, expected in ((released, 1.0), (exact, 0.3)):
        history = History.empty()
        step(shaper, history, {"q": [(0, True), (40, True)]})
        assert step(shaper, history, {"q": [(80, True), (80, True)]})[0] == pytest.approx(expected)


class Released:
    """The released bookkeeping, one process: an int64 slot a prompt, walked row by row in plain Python."""

    UNSEEN = 100_000

    def __init__(self, kind: str, mode: str) -> None:
        self.kind, self.mode = kind, mode
        self.slot: dict[str, int] = {}
        self.seen: dict[str, int] = {}

    def rewards(self, rows: list[tuple[str, int, bool]]) -> list[float]:
        frozen = {q: self.known_as(q) for q, _, _ in rows}
        rewards = [float(right) + self.bonus(frozen[q], length, right) for q, length, right in rows]
        for visited, _, _ in rows:
            news = [length for q, length, right in rows if q == visited and right]
            if news and self.mode == "min":
                self.slot[visited] = min([*news, self.slot.get(visited, self.UNSEEN)])
            elif news:
                old = self.seen.get(visited, 0)
                fraction = len(news) / (old + len(news))
                blend = fraction * (sum(news) / len(news)) + (1 - fraction) * self.slot.get(visited, 0)
                self.slot[visited] = math.trunc(blend)
                self.seen[visited] = old + len(news)
        return rewards

    def known_as(self, q: str) -> int:
        nothing = self.UNSEEN if self.mode == "min" else 0
        return self.slot.get(q, nothing)

    def bonus(self, h: int, length: int, right: bool) -> float:
        if not 0 < h < self.UNSEEN:
            return 0.0
        if self.kind == "linear":
            edge = (1 + 0.1) * h
            if right and length < h:
                return 1 - length / h
            return 0.0 if length < edge else max(-0.7 if right else -1.0, -(length - edge) / h)
        x = -1.0 if length >= 2 * h else math.cos((length / h) * (math.pi / 2))
        return max(-0.7, x) if right else min(0.0, x)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("mode", ["min", "mean"])
def test_code_variant_equals_the_released_code(kind, mode):
    generator = torch.Generator().manual_seed(7)
    shaper, released = Hapo(kind=kind, history=mode, variant="code"), Released(kind, mode)
    history = shaper.init()
    for _ in range(60):
        ids = [f"q{i}" for i in torch.randint(6, (4,), generator=generator).tolist()]
        # from no tokens at all to more than the released code's upper limit in `min` mode
        scale = 10 ** torch.randint(1, 4 if mode == "mean" else 6, (1,), generator=generator).item()
        lengths = torch.randint(2 * scale, (12,), generator=generator) // 2
        correct = torch.rand(12, generator=generator) < 0.4
        batch = RolloutBatch.of(prompt_keys=ids, group_size=3, lengths=lengths, correct=correct)
        shaped, history = shaper(batch, batch.task_reward, history)
        rows = [(ids[n // 3], int(lengths[n]), bool(correct[n])) for n in range(12)]
        expected = torch.tensor(released.rewards(rows), dtype=torch.float64)
        torch.testing.assert_close(shaped.value, expected, rtol=1e-12, atol=1e-12)


def test_min_history_shapes_alike_in_both_variants():
    histories = {variant: History.empty() for variant in ("paper", "code")}
    generator = torch.Generator().manual_seed(3)
    for _ in range(10):
        lengths, correct = torch.randint(1, 500, (8,), generator=generator), torch.rand(8, generator=generator) < 0.5
        batch = RolloutBatch.of(prompt_keys=["a", "b"], group_size=4, lengths=lengths, correct=correct)
        rewards = [Hapo(variant=v)(batch, batch.task_reward, h)[0].value for v, h in histories.items()]
        assert torch.equal(*rewards)


def test_words_become_members_from_python_and_from_omegaconf():
    from_python = Hapo(kind="linear", history="mean")
    node = OmegaConf.merge(OmegaConf.structured(Hapo), {"kind": "linear", "history": "mean", "weight": 0.5})
    from_omegaconf = OmegaConf.to_object(node)
    assert from_omegaconf == Hapo(kind="linear", history="mean", weight=0.5)
    assert from_python.kind is from_omegaconf.kind
    assert from_python.history is from_omegaconf.history


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "quadratic"}, "Hapo.kind='quadratic': choose one of cosine, linear"),
        ({"history": "median"}, "choose one of min, mean"),
        ({"weight": 2.0}, "keep weight \\* -floor below 1"),
        ({"weight": -1.0}, "Hapo.weight=-1.0"),
        ({"weight": math.nan}, "Hapo.weight=nan"),
        ({"floor": 0.3}, "Hapo.floor=0.3"),
        ({"tolerance": -0.1}, "Hapo.tolerance=-0.1"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Hapo(**fields)
