"""What several processes decide together."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Agreement:
    """All processes learn the greatest number that any of them has said.

    They ask at the same moments of training. The numbers go their own way (gloo, on the CPU), so that no GPU waits for
    them, and arrive with the next question: what is asked at every step costs next to nothing.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._sent: Tensor | None = None
        self._work: Any = None

    def later(self, number: int) -> int:
        """Say a number, and learn the greatest of those that were said the time before; 0 at first.

        A process that is alone learns its own at once.
        """
        if not _several():
            return number
        found = self._received()
        self._send(number)
        return found

    def now(self, number: int) -> int:
        """Say a number, and learn the greatest of those that are said now, or were said the time before."""
        if not _several():
            return number
        found = self._received()
        self._send(number)
        return max(found, self._received())

    def _send(self, number: int) -> None:
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        self._sent = torch.tensor([number])
        self._work = dist.all_reduce(self._sent, dist.ReduceOp.MAX, self._group, async_op=True)

    def _received(self) -> int:
        if self._work is None or self._sent is None:
            return 0
        self._work.wait()
        self._work = None
        return int(self._sent)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gathered(what: Any) -> list[Any]:
    """What each process has, in the order of their ranks. The object is pickled."""
    if not _several():
        return [what]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, what)
    return found
