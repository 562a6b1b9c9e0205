"""From the command line to a task: Hydra composes, and an error that a person can mend is one line and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from concise_rl.commands import config as configuration
from concise_rl.errors import UserError, printable, show_printable_tracebacks
from concise_rl.methods.registry import RECIPES


def through_hydra(task: Callable[[DictConfig], None], config_name: str) -> None:
    """Run a task on what the command line composes; an override that is refused is one line and exit code 2."""
    show_printable_tracebacks()
    if {"-h", "--help"} & set(sys.argv[1:]):
        from concise_rl.commands.help import help_text

        sys.stdout.write(help_text(config_name))
        return
    configuration.register()
    try:
        sys.argv[1:] = configuration.open_foreign(sys.argv[1:])
    except UserError as error:
        refuse(str(error))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print errors itself, several lines each
    failed: list[str] = []
    started = guarded(task, failed)
    try:
        hydra.main(version_base="1.3", config_path=str(RECIPES), config_name=config_name)(started)()
    except (HydraException, OmegaConfBaseException) as error:
        if os.environ.get("CONCISE_RL_TRACEBACK"):
            raise
        refuse(configuration.explain(error))
    if failed:
        sys.exit(2)


def refuse(message: str) -> NoReturn:
    """Say what a person can mend, in one line, and exit with 2."""
    # A file or a server may have put anything into it.
    sys.stderr.write(f"error: {printable(message)}\n")
    sys.exit(2)


def guarded(task: Callable[[DictConfig], None], failed: list[str]) -> Callable[[DictConfig], None]:
    """Show an error that a person can mend as one line and exit with 2; CONCISE_RL_TRACEBACK=1 shows where it arose.

    In a sweep the other jobs are worth having: the error is added to `failed`, and the next job begins.
    """

    def guarded_task(config: DictConfig) -> None:
        try:
            task(config)
        except (ValueError, OSError, ImportError) as error:
            if os.environ.get("CONCISE_RL_TRACEBACK"):
                raise
            message = configuration.one_line(error)
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                refuse(message)
            failed.append(message)
            sys.stderr.write(f"error: {printable(message)}\n")
        except RuntimeError as error:
            leave_lost_rank(error)
            leave_lost_worker(error)
            raise
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            sys.exit(130)

    return guarded_task


def leave_lost_worker(error: RuntimeError) -> None:
    """Refuse in one line where a worker of torch's data loader is gone; return from any other error."""
    if "DataLoader worker" in str(error) and not os.environ.get("CONCISE_RL_TRACEBACK"):
        refuse(
            f"a data loader worker died ({configuration.one_line(error)}): the system kills for memory; lower "
            "trainer.dataloader_num_workers, and go on with resume=auto"
        )


def leave_lost_rank(error: RuntimeError) -> None:
    """Exit with one line where a collective failed because another rank is gone; return from any other error."""
    from concise_rl.ranks import rank_is_lost

    if os.environ.get("CONCISE_RL_TRACEBACK") or not rank_is_lost(error):
        return
    sys.stderr.write(
        f"error: rank {os.environ.get('RANK', '?')} lost another rank ({printable(configuration.one_line(error))}): "
        "the launcher says at its end which one failed first, and of what; go on with resume=auto\n"
    )
    # The launcher takes the first failure that it sees for the cause; it ends this process when it has seen that one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(10)
    sys.exit(1)
