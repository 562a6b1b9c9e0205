"""Package data: the embedded tiny reasoner and its tokenizer."""

from pathlib import Path

TINY = Path(__file__).parent / "tiny"
"""A Hugging Face folder, loadable with `AutoModelForCausalLM` and `AutoTokenizer`."""
