"""Samplers and loaders: who gets which item, in which order, and where a resumed epoch begins."""

import itertools
import logging
import multiprocessing
import subprocess
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyden.data import InMemory, ShardedSampler, TrainLoader, data_folders, identity
from leyden.errors import UsageError


class Numbers(NamedTuple):
    """Batches of numbers, each its own index."""

    numbers: torch.Tensor


@given(length=st.integers(0, 40), world_size=st.integers(1, 5))
def test_in_order_every_item_is_given_exactly_once(length: int, world_size: int) -> None:
    shares = [list(ShardedSampler(length, rank, world_size, False, 0)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    for rank, share in enumerate(shares):
        assert share == sorted(share)
        assert len(ShardedSampler(length, rank, world_size, False, 0)) == len(share)


@given(length=st.integers(1, 40), world_size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_shuffled_every_item_is_given_and_shares_are_equal(length: int, world_size: int, epoch: int) -> None:
    shares = []
    for rank in range(world_size):
        sampler = ShardedSampler(length, rank, world_size, True, seed=7)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(sampler) == len(shares[-1])
    together = [index for share in shares for index in share]
    assert set(together) == set(range(length))
    assert len({len(share) for share in shares}) == 1
    assert len(together) < length + world_size


@given(length=st.integers(1, 60), world_size=st.integers(1, 4), size=st.integers(1, 5), epoch=st.integers(0, 3))
def test_all_processes_together_see_in_each_step_what_one_sees(
    length: int, world_size: int, size: int, epoch: int
) -> None:
    """Each item once; only a process that would have no last batch repeats one, and says so."""

    def steps(rank: int, processes: int, batch_size: int) -> list[tuple[list[int], bool]]:
        sampler = ShardedSampler(length, rank, processes, True, 7, batch_size)
        sampler.set_epoch(epoch)
        loader = TrainLoader(
            InMemory(Numbers(torch.arange(length))), sampler=sampler, batch_size=batch_size, collate_fn=identity
        )
        return [(batch[0].tolist(), loader.repeats) for batch in loader]

    alone = steps(0, 1, size * world_size)
    together = [steps(rank, world_size, size) for rank in range(world_size)]
    assert {len(share) for share in together} == {len(alone)}
    for step, (items, repeats) in enumerate(alone):
        assert not repeats
        counted = [item for share in together for item in ([] if share[step][1] else share[step][0])]
        assert sorted(counted) == sorted(items)
        assert all(share[step][0] for share in together)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShardedSampler(30, 0, 1, True, seed)
        sampler.set_epoch(epoch)
        torch.manual_seed(torch.seed())
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def batches(data: Any) -> list[list[float]]:
    """The targets of each batch of an epoch; targets are 0, 1, 2, ... here."""
    return [batch.targets.tolist() for batch in data.train_dataloader()]


@pytest.fixture
def numbered(toy: Any) -> Any:
    """A data module whose 10 training items have their own number as target, in batches of 3."""
    points = toy.Points(torch.zeros(15, 2), torch.arange(15.0) - 5)
    data = toy.Data(points, batch_size=3)
    data.setup("fit")
    return data


def test_an_epoch_in_batches(numbered: Any) -> None:
    found = batches(numbered)
    assert [len(batch) for batch in found] == [3, 3, 3, 1]
    assert sorted(itertools.chain(*found)) == list(range(10))
    assert found != sorted(found)


def test_no_batch_size_means_the_whole_split(numbered: Any) -> None:
    numbered.batch_size = None
    [batch] = batches(numbered)
    assert sorted(batch) == list(range(10))


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4])
def test_a_loader_goes_on_behind_the_batches_that_were_given(numbered: Any, done: int) -> None:
    whole = batches(numbered)
    first, second = numbered.train_dataloader(), numbered.train_dataloader()
    given = iter(first)
    for _ in range(done):
        next(given)

    second.load_state_dict(first.state_dict())

    rest = [batch.targets.tolist() for batch in second]
    assert rest == (whole[done:] if done < len(whole) else whole), "after a whole epoch the next one is whole again"
    assert [batch.targets.tolist() for batch in second] == whole


@pytest.mark.parametrize("changed", ["batch_size", "processes", "items"])
def test_batches_that_are_cut_otherwise_are_said_and_within_an_epoch_refused(
    numbered: Any, changed: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    caplog.set_level(logging.INFO, logger="leyden")
    loader = numbered.train_dataloader()
    state = loader.state_dict()
    before = {**state, changed: state[changed] + 1}
    what = f"{changed} {before[changed]} -> {state[changed]}"
    loader.load_state_dict(before)
    assert set(caplog.messages) == {f"the epochs before were cut in another way: {what}"}
    with pytest.raises(UsageError, match=f"middle of an epoch, and batches are now cut in another way: {what}"):
        loader.load_state_dict({**before, "batches_given": 2})


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_do_not_change_what_is_given(numbered: Any, workers: int) -> None:
    expected = batches(numbered)
    numbered.num_workers = workers
    loader = numbered.train_dataloader()
    given = iter(loader)
    next(given)
    resumed = numbered.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    assert [batch.targets.tolist() for batch in resumed] == expected[1:], "workers fetch ahead, which must not count"
    del given


def test_epochs_cut_short_begin_at_their_beginning(toy: Any) -> None:
    """With limit_train_batches an epoch ends before its loader does; the next must not go on from there."""
    seen: list[list[float]] = []

    class Seeing(toy.Task):  # type: ignore[misc, name-defined]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(batch.targets.tolist())
            return super().training_step(batch, batch_idx)

    data = toy.Data(toy.Points(torch.zeros(15, 2), torch.arange(15.0) - 5), batch_size=3)
    toy.trainer(max_epochs=3, limit_train_batches=2, limit_val_batches=0).fit(Seeing(), data)

    expected = []
    for epoch in range(3):
        sampler = ShardedSampler(10, 0, 1, True, seed=0)
        sampler.set_epoch(epoch)
        order = [float(index) for index in sampler]
        expected += [order[:3], order[3:6]]
    assert seen == expected


def test_data_in_memory_gives_batches_in_the_order_asked_for(toy: Any) -> None:
    points = toy.points(6)
    source = InMemory(points)
    batch = source.__getitems__([4, 0, 4])
    assert isinstance(batch, toy.Points)
    assert torch.equal(batch.targets, torch.stack([points.targets[4], points.targets[0], points.targets[4]]))
    assert torch.equal(source[2].inputs, points.inputs[2:3])
    assert len(source) == 6


def test_where_data_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(folder) for folder in data_folders("Set")] == ["data/Set"]
    monkeypatch.setenv("LEYDEN_DATA", "/somewhere")
    assert [str(folder) for folder in data_folders("Set")] == ["/somewhere/Set", "data/Set"]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": -1}, {"num_workers": -1}])
def test_options_that_cannot_be(toy: Any, options: dict[str, int]) -> None:
    [(name, value)] = options.items()
    with pytest.raises(UsageError, match=f"{name} is {value}; it must be"):
        toy.Data(toy.points(9), **options)


def test_a_signal_to_a_whole_job_does_not_end_the_processes_that_load(toy: Any) -> None:
    """torchrun and Slurm tell SIGTERM to all: training then still needs its loaders, to end the batch and save."""
    data = toy.Data(toy.points(200), batch_size=2, num_workers=1)
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    [worker] = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(itertools.islice(batches, 90))) == 90
    assert worker.is_alive()
    worker.terminate()  # as torch does to one that does not end otherwise
    worker.join(10)
    assert worker.exitcode == 0
