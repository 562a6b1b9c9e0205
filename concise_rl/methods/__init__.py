"""What papers differ in: one shelf for each kind of component, one file a paper.

Here: pure functions of a batch and a state. Not here: TRL, Hydra, tokenizers, ranks, files, clocks.
"""
