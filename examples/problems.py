"""Sixty-four sums that the embedded model has not seen, as any data set of yours would be: a prompt and an answer."""

from datasets import Dataset

from concise_rl.testbeds import ChainSum


def problems(split: str = "train", n: int = 64) -> Dataset:
    """`prompt`, `answer`, and a column `difficulty` that components may ask for."""
    return Dataset.from_list(
        [
            {"prompt": p.messages[-1]["content"], "answer": p.reference, "difficulty": p.columns["difficulty"]}
            for p in ChainSum().load(split)[:n]
        ]
    )
