"""Verified fetch: ordered sources, checksum, resume, safe unpacking, one clear error when no source works."""

import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from leyden.errors import DataError

CONNECT_SECONDS, READ_SECONDS = 5, 20  # longest waits for a connection, and for the next piece of an answer
PACKAGE_SECONDS = 300  # longest time for a distribution's package


class Attempt(NamedTuple):
    """A source that was tried, and why it did not serve."""

    source: str
    reason: str


class NoSourceError(DataError):
    """No source gives the data: lists each one that was tried with its reason, and where to put files by hand."""

    def __init__(self, what: str, tried: Sequence[Attempt], by_hand: Sequence[Path]) -> None:
        self.tried = tuple(tried)
        reasons = "".join(f"\n  {attempt.source}: {attempt.reason}" for attempt in tried)
        places = "".join(f"\n  {path.absolute()}" for path in by_hand)
        super().__init__(f"cannot get {what}. Tried:{reasons}\nGet it elsewhere, put it here and start again:{places}")


@dataclass(frozen=True)
class Download:
    """A file that can be fetched.

    name: the file's name on disk. urls: where it is offered (http, https), best first.
    checksum: "md5:...", "sha1:..." or "sha256:...", in hexadecimal. size: in bytes; None where unknown.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int | None = None

    def mismatch(self, path: Path) -> str | None:
        """What is wrong with this copy of the file, found and expected; None where it is the right one."""
        import pooch

        found_size = path.stat().st_size
        if self.size is not None and found_size != self.size:
            return f"{found_size} bytes, expected {self.size}"
        algorithm, _, expected = self.checksum.partition(":")
        found = pooch.file_hash(str(path), alg=algorithm)
        return None if found == expected.lower() else f"wrong {algorithm} {found}, expected {expected}"


def fetch(download: Download, folder: Path) -> Path:
    """The path of the verified file in `folder`, fetched where it is missing or damaged.

    A transfer that broke off is resumed, by the next source or the next start, from `<name>.part`; only a verified
    file gets its real name. Processes that share the folder wait for each other. Raises NoSourceError.
    """
    from filelock import FileLock

    target = folder / download.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / f".{download.name}.lock"
        with FileLock(lock):
            tried = _try_all(download, target)
            # Whoever still waits for the removed lock finds the file verified, or verifies what it fetches itself.
            lock.unlink(missing_ok=True)
    except OSError as error:
        tried = [Attempt(str(folder), f"cannot be written to ({error.strerror or error})")]
    if tried:
        raise NoSourceError(download.name, tried, [target])
    return target


def _try_all(download: Download, target: Path) -> list[Attempt]:
    """Empty once the verified file is in place, else one failed attempt for each source."""
    tried: list[Attempt] = []
    if target.exists():
        wrong = download.mismatch(target)
        if wrong is None:
            return []
        tried.append(Attempt(str(target), wrong))
    part = target.with_name(f"{target.name}.part")
    for url in download.urls:
        reason = _try_one(download, url, part)
        if reason is None:
            part.replace(target)
            return []
        tried.append(Attempt(url, reason))
    return tried or [Attempt(str(target), "no such file, and no address to fetch it from")]


def _try_one(download: Download, url: str, part: Path) -> str | None:
    """Bring `part` to its full length from this source. None where it is then the right file, else the reason."""
    resumed = part.exists() and part.stat().st_size > 0
    try:
        _transfer(url, part)
    except OSError as error:  # what requests raises derives from it
        reason = _reason(error, part)
        useless = getattr(getattr(error, "response", None), "status_code", None) == 416  # nothing behind this offset
    else:
        wrong = download.mismatch(part)
        if wrong is None:
            return None
        reason, useless = wrong, True
    if useless or not part.stat().st_size:
        part.unlink()
    # The beginning may have been another file's: once more, from the start.
    return _try_one(download, url, part) if useless and resumed else reason


def _transfer(url: str, part: Path) -> None:
    """Append to `part` what is missing of the file at `url`; raises what requests raises."""
    import pooch
    import requests

    with part.open("ab") as file:

        def start_over_unless_resumed(response: requests.Response, **_: object) -> None:
            if response.status_code == 200:
                file.truncate(0)

        headers = {"Accept-Encoding": "identity"}
        if file.tell():
            headers["Range"] = f"bytes={file.tell()}-"
        http = pooch.HTTPDownloader(
            chunk_size=1 << 16,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            headers=headers,
            hooks={"response": start_over_unless_resumed},
        )
        http(url, file, None)


def _reason(error: OSError, part: Path) -> str:
    """Why a transfer failed, in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"broke off; {part.stat().st_size} bytes are kept to go on from"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return error.strerror or str(error)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar (also compressed) or zip archive into `folder`, all of it or, where it is damaged, nothing.

    Raises DataError for an archive that is damaged, or that holds a path or a link that leaves the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as staging:
        try:
            _extract(archive, Path(staging))
            _merge(Path(staging), folder)
        except (
            OSError,
            EOFError,
            RuntimeError,
            zlib.error,
            lzma.LZMAError,
            tarfile.TarError,
            zipfile.BadZipFile,
        ) as error:
            raise DataError(f"{archive}: cannot be unpacked ({error}). Remove it, and get it again.") from error


def unpack_folder(archives: Sequence[Path], inside: str, target: Path, parts: Sequence[str] = ("",)) -> None:
    """Unpack archives over each other beside the first, and make a folder of what is in them the folder `target`.

    inside: its path in the archives. parts: names in it of what alone is moved into `target`, in this order; without
    them all of it is. Raises DataError as `unpack` does, and where a part is not there or its place is taken.
    """
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=archives[0].parent) as temporary:
        for archive in archives:
            unpack(archive, Path(temporary))
        try:
            for part in parts:
                Path(temporary, inside, part).replace(target / part)
        except OSError as error:
            raise DataError(f"{archives[0]} cannot be unpacked to {target}: {error.strerror or error}.") from error


def _extract(archive: Path, folder: Path) -> None:
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")  # raises for paths and links that leave the folder
            while tar.fileobj and tar.fileobj.read(1 << 20):  # the compression's checksum stands at the very end
                pass
        return
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise zipfile.BadZipFile(f"its member {name!r} would be written outside of the folder")
        packed.extractall(folder)  # a link is written as a plain file


def _merge(source: Path, target: Path) -> None:
    """Move what is in `source` into `target`, whole folders at once where they are new."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and not entry.is_symlink() and place.is_dir():
            _merge(entry, place)
        else:
            entry.replace(place)


def unpack_debian_package(package: str, folder: Path) -> None:
    """Fetch a package of the Debian or Ubuntu in use, which apt verifies, and unpack it into `folder`. Needs no root.

    Raises DataError with the reason where there is no such system, package or network.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DataError("needs apt-get and dpkg-deb, which are not installed here")
    with tempfile.TemporaryDirectory() as temporary:
        _run(["apt-get", "-q", "-o", f"Acquire::http::Timeout={READ_SECONDS}", "download", package], Path(temporary))
        for archive in Path(temporary).glob("*.deb"):
            _run(["dpkg-deb", "-x", str(archive), str(folder)], Path(temporary))


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=PACKAGE_SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} took more than {PACKAGE_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("E:")] or error.stderr.splitlines()
        raise DataError(lines[-1] if lines else f"{command[0]} failed with status {error.returncode}") from error
