"""Signals: those that come before training is ready for them, and those that are meant for another process."""

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

# what a cluster sends before it takes the machine away; not every system has it
WARNING: signal.Signals | None = getattr(signal, "SIGUSR1", None)
_early: list[signal.Signals] = []


def listen() -> None:
    """From now on SIGUSR1, which otherwise ends a process, is only noted. For the main thread."""
    _early.clear()
    if WARNING is not None:
        signal.signal(WARNING, _note)


def noted() -> signal.Signals | None:
    """A signal that came since `listen`; it is told once."""
    return _early.pop() if _early else None


def finish(words: Sequence[str], **options: Any) -> int:
    """Run a program that ends well by itself on Ctrl-C, of which the terminal tells it too; its exit status."""
    running = subprocess.Popen(words, **options)
    while True:
        with suppress(KeyboardInterrupt):
            return running.wait()


def spare_worker() -> None:
    """For the start of a process that loads data: only its parent may end it.

    torchrun and Slurm signal all processes of a job. One that trains saves then, and needs its loaders for that; by
    torch's own handler a loader dies of the signal.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _note(number: int, frame: FrameType | None) -> None:
    _early[:] = [signal.Signals(number)]
