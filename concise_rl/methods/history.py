"""The keyed per-prompt store of stateful components: a shortest or mean length, a pass rate.

Key uint64, value float32, count uint32, at the same precision in memory as on disk, so a run that is saved and resumed
continues with the same bits as one that never stopped. Lengths are exact up to 2**24 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from concise_rl.errors import UserError

_COLUMNS: dict[str, np.dtype] = {"keys": np.dtype("<u8"), "values": np.dtype("<f4"), "counts": np.dtype("<u4")}
_COUNT_MAX = 2**32 - 1
_DAMAGED = "the saved history is damaged, resume from another checkpoint"


class History:
    """One value of 0 or more and one count a prompt, found by the prompt's content key.

    Keys are the 64-bit blake2b of the content key: among 1,000,000 prompts any two collide with a chance of 3e-8. A
    prompt may stand several times in one call; the outcome does not depend on the order of a call's rows, not in the
    last bit.

    Example:
        ```python
        history = History.empty().record_min(["a", "b", "a"], [30, 12, 25])
        history.lookup(["a", "new"])  # (array([25., nan]), array([2, 0]))
        ```
    """

    def __init__(self) -> None:
        self._n_prompts = 0
        self._table = _empty_table(32)

    @classmethod
    def empty(cls) -> History:
        """The history before the first step."""
        return cls()

    def lookup(self, prompt_keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """What is known of each prompt.

        Returns:
            values: (P,) float64, NaN where the prompt was never recorded.
            counts: (P,) int64, how many rows its value was made from, 0 where never recorded.
        """
        rows_P = self._table[self._find(_keys(prompt_keys))]
        counts_P = rows_P["counts"].astype(np.int64)
        return np.where(counts_P > 0, rows_P["values"].astype(np.float64), np.nan), counts_P

    def record_min(self, prompt_keys: Sequence[str], values: npt.ArrayLike) -> History:
        """value = min(value, every new one of the prompt); in place, returns self.

        Raises:
            UserError: a value is not finite and 0 or more, or there is not one a prompt; nothing is recorded then.
        """
        values_R, ones_R = _checked(prompt_keys, values, None)
        keys_K, key_of_R = np.unique(_keys(prompt_keys), return_inverse=True)
        slots_K, old_values_K, old_counts_K = self._claim(keys_K)
        smallest_K = np.where(old_counts_K > 0, old_values_K, np.inf)
        np.minimum.at(smallest_K, key_of_R, values_R)
        self._store(slots_K, smallest_K, old_counts_K + np.bincount(key_of_R, ones_R, len(keys_K)))
        return self

    def record_mean(
        self, prompt_keys: Sequence[str], values: npt.ArrayLike, counts: npt.ArrayLike | None = None
    ) -> History:
        """value = mean over everything recorded; each new value stands for `counts` rows (1); in place, returns self.

        The mean (value * count + sum of new values * counts) / (count + sum of counts) is taken in float64 and kept
        in float32; the count saturates at 2**32 - 1.

        Raises:
            UserError: a value is not finite and 0 or more, a count is not a whole number above 0, or there is not one
                a prompt; nothing is recorded then.
        """
        values_R, counts_R = _checked(prompt_keys, values, counts)
        keys_K, key_of_R = np.unique(_keys(prompt_keys), return_inverse=True)
        slots_K, old_values_K, old_counts_K = self._claim(keys_K)
        totals_R = values_R * counts_R
        order_R = np.argsort(totals_R)  # float addition is not associative: one order, one sum
        totals_K = np.bincount(key_of_R[order_R], totals_R[order_R], len(keys_K))
        counts_K = old_counts_K + np.bincount(key_of_R, counts_R, len(keys_K))
        self._store(slots_K, (old_values_K * old_counts_K + totals_K) / counts_K, counts_K)
        return self

    def assign(self, prompt_keys: Sequence[str], values: npt.ArrayLike, counts: npt.ArrayLike) -> History:
        """value, count = the given ones, for a statistic that is no plain minimum or mean; in place, returns self.

        Raises:
            UserError: as `record_mean`, or a prompt stands twice; nothing is recorded then.
        """
        values_R, counts_R = _checked(prompt_keys, values, counts)
        if len(set(prompt_keys)) < len(prompt_keys):
            raise UserError("history.assign: a prompt stands twice; give each prompt one value")
        slots_R, _, _ = self._claim(_keys(prompt_keys))
        self._store(slots_R, values_R, counts_R)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """`keys` uint64, `values` float32, `counts` uint32, each (prompts,), in ascending order of keys: equal
        histories give equal arrays, however they came about."""
        rows = self._table[self._table["counts"] > 0]
        order = np.argsort(rows["keys"])
        return {name: rows[name][order] for name in _COLUMNS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> History:
        """The history that gave `arrays`.

        Raises:
            UserError: a column is missing or of another type or length, a key stands twice, a value is not finite
                and 0 or more, or a count is 0.
        """
        shape = (len(arrays.get("keys", ())),)
        for name, dtype in _COLUMNS.items():
            column = arrays.get(name)
            if column is None or column.dtype != dtype or column.shape != shape:
                found = "missing" if column is None else f"{column.dtype} of shape {column.shape}"
                raise UserError(f"history.{name} is {found}; it must be {dtype} of shape {shape}: {_DAMAGED}")
        keys, values, counts = (arrays[name] for name in _COLUMNS)
        if bool((np.diff(np.sort(keys)) == 0).any()):
            raise UserError(f"history.keys has a key twice; each stands once: {_DAMAGED}")
        if not bool((np.isfinite(values) & (values >= 0) & (counts > 0)).all()):
            raise UserError(f"history.values must be finite and 0 or more, history.counts at least 1: {_DAMAGED}")
        history = cls()
        slots, _, _ = history._claim(keys)
        history._store(slots, values, counts)
        return history

    def copy(self) -> History:
        """An independent history with the same content."""
        twin = History()
        twin._n_prompts, twin._table = self._n_prompts, self._table.copy()
        return twin

    def __len__(self) -> int:
        """Prompts recorded."""
        return self._n_prompts

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        mine, theirs = self.arrays(), other.arrays()
        return all(np.array_equal(mine[name], theirs[name]) for name in _COLUMNS)

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    def __repr__(self) -> str:
        return f"History({len(self)} prompts)"

    # A hash table in one array (open addressing, linear probing, at most half full): a dict of a million keys costs
    # 130 MB and a cache miss or four a key. A slot is empty where its count is 0; nothing is ever deleted.

    def _find(self, keys_K: np.ndarray) -> np.ndarray:
        """The slot of each key: where it stands, or the empty one where the search for it ended."""
        mask = len(self._table) - 1
        slots_K = (keys_K & np.uint64(mask)).astype(np.int64)
        searching = np.arange(len(keys_K))
        while len(searching):
            rows = self._table[slots_K[searching]]
            searching = searching[(rows["counts"] > 0) & (rows["keys"] != keys_K[searching])]
            slots_K[searching] = (slots_K[searching] + 1) & mask
        return slots_K

    def _claim(self, keys_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A slot for each of the distinct keys, and the values and counts that stood there (0 where new)."""
        if 2 * (self._n_prompts + len(keys_K)) > len(self._table):
            rows = self._table[self._table["counts"] > 0]
            self._table = _empty_table(4 * (self._n_prompts + len(keys_K)))
            self._table[self._settle(rows["keys"])] = rows
        slots_K = self._find(keys_K)
        new = self._table["counts"][slots_K] == 0
        slots_K[new] = self._settle(keys_K[new])
        self._n_prompts += int(new.sum())
        old_K = self._table[slots_K]
        return slots_K, old_K["values"].astype(np.float64), np.where(new, 0.0, old_K["counts"])

    def _settle(self, keys_K: np.ndarray) -> np.ndarray:
        """Put distinct keys that the table lacks into slots of their own, count 1 for now."""
        slots_K = self._find(keys_K)
        homeless = np.arange(len(keys_K))
        while len(homeless):
            self._table["keys"][slots_K[homeless]] = keys_K[homeless]
            self._table["counts"][slots_K[homeless]] = 1
            homeless = homeless[self._table["keys"][slots_K[homeless]] != keys_K[homeless]]  # another took the slot
            slots_K[homeless] = self._find(keys_K[homeless])
        return slots_K

    def _store(self, slots_K: np.ndarray, values_K: np.ndarray, counts_K: np.ndarray) -> None:
        self._table["values"][slots_K] = values_K
        self._table["counts"][slots_K] = np.minimum(counts_K, _COUNT_MAX)


def _empty_table(n_slots: int) -> np.ndarray:
    return np.zeros(1 << max(n_slots - 1, 1).bit_length(), np.dtype(list(_COLUMNS.items())))


def _keys(prompt_keys: Sequence[str]) -> np.ndarray:
    digests = [blake2b(prompt_key.encode(errors="surrogatepass"), digest_size=8).digest() for prompt_key in prompt_keys]
    return np.frombuffer(b"".join(digests), _COLUMNS["keys"])


def _checked(
    prompt_keys: Sequence[str], values: npt.ArrayLike, counts: npt.ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values and counts, (R,) float64 each, refused unless every one can be kept."""
    values_R = np.asarray(values, np.float64)
    counts_R = np.ones(len(prompt_keys)) if counts is None else np.asarray(counts, np.float64)
    with np.errstate(over="ignore"):
        kept_R = values_R.astype(np.float32)
    for name, array_R, good_R in (
        ("values", values_R, np.isfinite(kept_R) & (kept_R >= 0)),
        ("counts", counts_R, (counts_R >= 1) & (counts_R <= _COUNT_MAX) & (counts_R == np.floor(counts_R))),
    ):
        if array_R.shape != (len(prompt_keys),):
            raise UserError(
                f"history.{name} has shape {array_R.shape} for {len(prompt_keys)} prompt keys: give one each"
            )
        if not good_R.all():
            row = int(np.flatnonzero(~good_R)[0])
            must = "finite and 0 or more" if name == "values" else "a whole number from 1"
            raise UserError(f"history.{name}[{row}]={array_R[row]} (prompt {prompt_keys[row]}): record what is {must}")
    return values_R, counts_R
