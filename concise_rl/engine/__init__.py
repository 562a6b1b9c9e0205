"""What runs a method: the trainer, and what makes its runs whole, watched and resumable.

Here: `trainer.py`, and beneath it `resuming.py`, `lean.py` (the loss), `forward.py` (sampling and scoring) and
`fields.py` (the configuration), the files that know TRL; `server_trainer.py`, a trainer on TRL's asynchronous one;
`collect.py` (each rank's completions to one batch), `groups.py` (which rows teach), `checkpoint.py` and `guards.py`.
Not here: what a method computes (`methods/`), what touches a transformers model alone (`model/`), and what a command
line says (`commands/`).
"""
