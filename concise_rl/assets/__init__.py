"""Package data: the embedded tiny reasoners, each a Hugging Face folder with tokenizer and the record of its making.

They load with `AutoModelForCausalLM` and `AutoTokenizer`; recipes name them `embedded:NAME`.
"""

from pathlib import Path

_HERE = Path(__file__).parent

TINY = _HERE / "tiny"
"""Sums that are re-checked for nothing (`data=chain_sum`)."""

_NAMES = ("tiny", "tiny_running_total", "tiny_which_sum", "tiny_efforts")

REASONERS: dict[str, Path] = {name: _HERE / name for name in _NAMES}
"""By name; beside the weights of a test bed lies its law (`law.json`)."""
