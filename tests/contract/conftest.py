import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Threads that spin for each other cost these small networks more than they bring."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
