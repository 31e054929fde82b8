"""Numbered folders, checkpoints that are whole or not there, and finding the one that is meant."""

import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.errors import CheckpointError, LeydenError, UsageError
from leyden.folders import replacing, require_writable, write_text
from leyden.main import main
from leyden.runs import AtomicCheckpointIO, Run, find_checkpoint, newest_valid_checkpoint, read_checkpoint

RUNS_IN_EACH = 10


# ---- numbering


def test_runs_are_numbered_from_one() -> None:
    assert [str(Run.create(Path("runs/lenet")).path) for _ in range(3)] == [f"runs/lenet/{n}" for n in (1, 2, 3)]


def test_numbers_are_not_used_again_and_other_names_do_not_count() -> None:
    for name in ("2", "9", "10", "best", "11b", "-12"):
        Path("runs/lenet", name).mkdir(parents=True)
    assert Run.create(Path("runs/lenet")).path.name == "11"


def test_a_file_takes_a_number_too() -> None:
    Path("runs").mkdir()
    Path("runs", "1").write_text("")
    assert Run.create(Path("runs")).path.name == "2"


def make_runs(experiment: str) -> list[str]:
    return [Run.create(Path(experiment)).path.name for _ in range(RUNS_IN_EACH)]


def test_threads_never_share_a_folder() -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [name for part in pool.map(make_runs, ["runs/lenet"] * 8) for name in part]
    assert sorted(map(int, names)) == list(range(1, 8 * RUNS_IN_EACH + 1))


def test_processes_never_share_a_folder() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names = [name for part in pool.map(make_runs, ["runs/lenet"] * 4) for name in part]
    assert sorted(map(int, names)) == list(range(1, 4 * RUNS_IN_EACH + 1))


def test_a_folder_that_cannot_be_made() -> None:
    Path("file").write_text("")
    with pytest.raises(LeydenError, match="folder file/lenet cannot be written: Not a directory"):
        Run.create(Path("file/lenet"))
    with pytest.raises(LeydenError, match="folder file/lenet cannot be written: Not a directory"):
        require_writable(Path("file/lenet"))


def test_being_able_to_write_is_tried_without_a_trace() -> None:
    require_writable(Path("runs/lenet"))
    assert list(Path("runs/lenet").iterdir()) == []


# ---- finding checkpoints


def checkpoint_at(path: str, age: float = 0.0, **content: Any) -> Path:
    """A checkpoint that was written `age` seconds ago."""
    file = Path(path)
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, **content}, file)
    written = time.time() - age
    os.utime(file, (written, written))
    return file


def test_a_run_stands_for_its_best_checkpoint_and_else_its_last() -> None:
    last = checkpoint_at("runs/lenet/1/checkpoints/last.ckpt")
    assert find_checkpoint("runs/lenet/1") == last
    best = checkpoint_at("runs/lenet/1/checkpoints/best.ckpt", age=100)
    assert find_checkpoint("runs/lenet/1") == best
    assert find_checkpoint("runs/lenet/1/") == best
    assert find_checkpoint(str(last)) == last


def test_an_experiment_is_no_run_but_its_newest_is_named() -> None:
    checkpoint_at("runs/lenet/9/checkpoints/last.ckpt")
    checkpoint_at("runs/lenet/10/checkpoints/last.ckpt", age=100)
    Path("runs/lenet/11").mkdir()
    with pytest.raises(UsageError, match=r"'runs/lenet' holds no checkpoint .* its newest run, runs/lenet/10\?"):
        find_checkpoint("runs/lenet")


def test_the_run_of_a_checkpoint() -> None:
    assert Run.of_checkpoint(Path("runs/lenet/1/checkpoints/best.ckpt")) is None  # somebody else's folder
    Path("runs/lenet/1").mkdir(parents=True)
    for name in ("config.yaml", "log.txt"):
        Path("runs/lenet/1", name).touch()
    assert Run.of_checkpoint(Path("runs/lenet/1/checkpoints/model.ckpt")) is None
    assert Run.of_checkpoint(Path("runs/lenet/1/checkpoints/best.ckpt")) == Run(Path("runs/lenet/1"))
    assert Run.of_checkpoint(Path("downloads/best.ckpt")) is None


def test_the_newest_checkpoint_of_all_runs() -> None:
    experiment = Path("runs/lenet")
    assert newest_valid_checkpoint(experiment) == (None, [])
    checkpoint_at("runs/lenet/1/checkpoints/last.ckpt", age=30)
    newest = checkpoint_at("runs/lenet/2/checkpoints/last.ckpt", age=10)
    checkpoint_at("runs/lenet/10/checkpoints/last.ckpt", age=20)
    checkpoint_at("runs/other/1/checkpoints/last.ckpt")
    assert newest_valid_checkpoint(experiment) == (newest, [])


def test_best_and_last_of_one_moment_mean_last() -> None:
    for name in ("best", "last"):
        checkpoint_at(f"runs/lenet/1/checkpoints/{name}.ckpt")
        os.utime(f"runs/lenet/1/checkpoints/{name}.ckpt", (1e9, 1e9))
    found, _ = newest_valid_checkpoint(Path("runs/lenet"))
    assert found == Path("runs/lenet/1/checkpoints/last.ckpt")


def test_damaged_newest_checkpoints_are_passed_over_and_named() -> None:
    good = checkpoint_at("runs/lenet/1/checkpoints/last.ckpt", age=30)
    cut = checkpoint_at("runs/lenet/2/checkpoints/best.ckpt", age=20)
    cut.write_bytes(cut.read_bytes()[:-50])
    os.utime(cut, (time.time() - 20,) * 2)
    empty = Path("runs/lenet/2/checkpoints/last.ckpt")
    empty.write_bytes(b"")

    found, problems = newest_valid_checkpoint(Path("runs/lenet"))

    assert found == good
    assert [problem.split()[0] for problem in problems] == [str(empty), str(cut)]


def test_resuming_automatically_says_what_it_left_out(
    trained_run: Path, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    last, best = (trained_run / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    last.write_bytes(last.read_bytes()[:-1000])
    same = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--experiment=trained"]

    assert main(["fit", *fit_options, *same, "--resume", "auto", "--trainer.max_epochs=4"]) == 0

    shown = capsys.readouterr().out
    assert f"left out: {last} (" in shown
    assert f"going on from {best} (step " in shown
    assert read_checkpoint(last)["epoch"] == 3


def test_resuming_automatically_starts_afresh_where_there_is_nothing(
    fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *fit_options, "--resume", "auto"]) == 0
    assert "--resume auto: runs/lenet has no checkpoint yet, starting afresh" in capsys.readouterr().out
    assert Path("runs/lenet/1/checkpoints/last.ckpt").is_file()


# ---- reading


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_that_could_run_is_read(zipped: bool) -> None:
    path = Path("evil.ckpt")
    torch.save({"state_dict": {}, "x": Harmful()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="holds Python objects"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not Path("executed").exists()


def test_a_checkpoint_cut_anywhere_is_refused() -> None:
    path = checkpoint_at("whole.ckpt", weights=torch.arange(50.0))
    whole = path.read_bytes()
    assert torch.equal(read_checkpoint(path)["weights"], torch.arange(50.0))
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"whole\.ckpt"):
            read_checkpoint(path)


def test_a_checkpoint_that_is_not_there() -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.ckpt cannot be read: No such file"):
        read_checkpoint(Path("nowhere.ckpt"))


# ---- writing


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Like a disk that gets full while a file is written, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before() -> None:
    path = checkpoint_at("checkpoints/last.ckpt", epoch=1)
    with files_no_larger_than(100_000), pytest.raises(CheckpointError) as caught:
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(10**6)}, "epoch": 2}, path)

    message = str(caught.value)
    assert message.startswith("the checkpoint checkpoints/last.ckpt cannot be written: File too large.")
    assert "--resume auto" in message
    assert read_checkpoint(path)["epoch"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_folder_that_became_a_file() -> None:
    Path("checkpoints").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written: "):
        AtomicCheckpointIO().save_checkpoint({}, "checkpoints/last.ckpt")


def test_small_files_are_whole_or_not_there() -> None:
    path = Path("config.yaml")
    write_text(path, "old")
    with files_no_larger_than(10), pytest.raises(OSError, match="File too large"):
        write_text(path, "new" * 100_000)
    assert path.read_text() == "old"
    assert list(Path().iterdir()) == [path]


def test_a_file_appears_when_all_is_written() -> None:
    path = Path("metrics.csv")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(Path().iterdir()) == [path]


def test_a_disk_that_gets_full_during_training(
    trained_run: Path, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (trained_run / "checkpoints").iterdir()}
    capsys.readouterr()
    same = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--experiment=trained"]
    command = ["fit", *fit_options, *same, "--resume=auto", "--trainer.max_epochs=5"]

    with files_no_larger_than(300_000):  # enough for everything but a checkpoint
        assert main(command) == 1

    message = capsys.readouterr().err
    assert message.startswith("error: the checkpoint ")
    assert "cannot be written: File too large." in message
    assert len(message.splitlines()) == 1
    after = {path.name: path.read_bytes() for path in (trained_run / "checkpoints").iterdir()}
    assert after == before, "the checkpoints are as they were, and nothing else is there"

    assert main(command) == 0, "with room again, the same command goes on"
    assert read_checkpoint(trained_run / "checkpoints" / "last.ckpt")["epoch"] == 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, where the system lets us have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(
    small_disk: Path, trained_run: Path, fit_options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained_run, small_disk / "runs" / "trained" / "1")
    checkpoints = small_disk / "runs" / "trained" / "1" / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    with suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as filling:
        while filling.write(bytes(4096)):
            pass
    capsys.readouterr()
    same = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--experiment=trained"]

    assert main(["fit", *fit_options, *same, f"--runs={small_disk / 'runs'}", "--resume=auto"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "No space left on device" in message
    assert len(message.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before
    assert not list(small_disk.rglob("*.part"))
