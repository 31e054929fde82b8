"""Signals that come before training is ready for them."""

import signal
from types import FrameType

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


def _note(number: int, frame: FrameType | None) -> None:
    _early[:] = [signal.Signals(number)]
