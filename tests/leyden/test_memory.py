"""Freed memory stays in the process: measured by page faults, in a process of its own."""

import subprocess
import sys

import pytest

from leyden.memory import keep_freed_memory

# 20 times 16 MB: without the setting each block is mapped anew, 4096 pages each
PROGRAM = """
import resource
from leyden.memory import keep_freed_memory

if {keep}:
    assert keep_freed_memory()


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


bytearray(1 << 24)
before = faults()
for _ in range(20):
    bytearray(1 << 24)
print(faults() - before)
"""


def glibc() -> bool:
    import platform

    return platform.libc_ver()[0] == "glibc"


@pytest.mark.skipif(not glibc(), reason="another C library")
def test_memory_is_mapped_once() -> None:
    counts = {}
    for keep in (False, True):
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        counts[keep] = int(done.stdout)
    assert counts[True] < 100
    assert counts[False] > 20 * counts[True]


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("libc.so.6: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert keep_freed_memory() is False
