"""`python -m leyden.agent OPTIONS`: torchrun, whose own errors are a sentence each; the processes tell theirs."""

import socket
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import main as torchrun


def main(arguments: Sequence[str]) -> int:
    """Run torchrun with its own options and return the exit status: that of the process that failed first."""
    try:
        torchrun(list(arguments))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            what = f"was killed by {failure.signal_name()}. Memory may have run out, or somebody ended it"
        else:
            what = f"ended with status {failure.exitcode}. Its own error is above or in that host's output"
        print(f"error: rank {rank} on {socket.gethostname()} was the first to fail: it {what}.", file=sys.stderr)
        return max(int(failure.exitcode), 1)
    except RendezvousError as error:
        print(f"error: the machines could not meet: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except SignalException as stopped:
        print(f"error: stopped by {stopped.sigval.name}.", file=sys.stderr)
        return 128 + stopped.sigval.value
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
