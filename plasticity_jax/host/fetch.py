"""Downloads of the public data sets: several mirrors, checksums, and going on where a broken connection stopped.

A file is written to `<file>.part` first, which a later attempt continues with a Range request, from whichever mirror;
it gets its name when its SHA-256 is right, and nothing of it stays otherwise. Checksums guard downloads only: what
`data.load` accepts is left alone, whatever its checksum.

A mirror of one's own has the layout of `SOURCES`: BASE/mnist/train-images-idx3-ubyte.gz, BASE/fashion-mnist/...,
BASE/cifar-10-binary.tar.gz, BASE/cifar-100-binary.tar.gz. BASE is the argument `base_url`, else $PLASTICITY_JAX_MIRROR.
"""

import contextlib
import os
import pathlib
import shutil
import tarfile
import tempfile

from plasticity_jax.check import nearest
from plasticity_jax.host import data
from plasticity_jax.host.formats import DataError
from plasticity_jax.host.sources import SOURCES, Source

__all__ = ["SOURCES", "Source", "fetch", "fetch_file"]

CHUNK = 1 << 16  # bytes
TIMEOUT = 30  # seconds without a byte
_TRY = "Try again, put the file there yourself, or name a mirror with --base_url"
_WRONG = "delivered a file with a wrong SHA-256, discarded"


def fetch(name, folder=None, base_url=None, progress=True, say=print):
    """Download what a data set lacks, and read it once to be sure.

    Args:
      name: a key of `SOURCES`.
      folder: the data folder; the default is that of `data.load`.
      base_url: address of a mirror to use instead of the public ones.
      progress: whether to show a bar where stderr is a terminal.
      say: called with one line of text per event.

    Returns:
      the data folder.

    Raises:
      DataError: no mirror delivered, or the disk refused; the message lists what each mirror did.
      ValueError: the data set needs no download or is unknown.
    """
    if name not in SOURCES:
        raise ValueError(f"{name!r} cannot be downloaded.{nearest(name, SOURCES)} There are {', '.join(SOURCES)}.")
    folder = data.data_folder(folder)
    with contextlib.suppress(DataError):
        places = {str(pathlib.Path(file).parent) for file in data.load(name, folder).files}
        say(f"{name}: already there and whole, left alone: {', '.join(sorted(places))}")
        return folder
    for source in SOURCES[name]:
        fetch_file(source, folder, base_url, progress, say)
    data.load(name, folder)
    say(f"{name}: complete in {folder}")
    return folder


def fetch_file(source, folder, base_url=None, progress=True, say=print):
    """Download one file, check its SHA-256 and unpack it where it is an archive.

    Args:
      source: a `Source`.
      folder, base_url, progress, say: as for `fetch`.

    Returns:
      the file, or the folder that an archive was unpacked to; an archive that was downloaded here is then removed.

    Raises:
      DataError: as for `fetch`.
    """
    path = pathlib.Path(folder) / source.file
    had = path.exists()
    try:
        _download(source, path, base_url or os.environ.get("PLASTICITY_JAX_MIRROR"), progress, say)
        if not source.unpacks:
            return path
        target = _unpack(path, path.parent / source.unpacks)
        if not had:
            path.unlink()
        return target
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error}); free space, or name another --folder") from error


def _download(source, path, base_url, progress, say):
    """Try the mirrors in turn until one delivers the right bytes."""
    addresses = (f"{base_url.rstrip('/')}/{source.file}",) if base_url else source.mirrors
    failures = []
    for address in addresses:
        began = _part(path).exists()  # its beginning may be bad: then the same mirror gets a second, fresh try
        failure = _attempt(source, path, address, progress)
        if failure == _WRONG and began:
            failure = _attempt(source, path, address, progress)
        if failure is None:
            return
        failures.append(f"{address}: {failure}")
        say(failures[-1])
    reasons = "".join(f"\n  {failure}" for failure in failures)
    raise DataError(f"{path}: no mirror delivered it{_kept(path)}. {_TRY}:{reasons}")


def _kept(path):
    """What an error may promise about a download that broke off."""
    part = _part(path)
    return f"; the same command goes on after the {part.stat().st_size:,} bytes in {part}" if part.exists() else ""


def _attempt(source, path, address, progress):
    """Get the file from one mirror; None, or what went wrong."""
    import pooch  # here, so that reading data needs neither pooch nor requests

    downloader = _resuming(source, path, progress)
    try:
        pooch.retrieve(address, f"sha256:{source.sha256}", path.name, path.parent, downloader=downloader)
    except _MirrorError as error:
        return str(error)
    except ValueError:  # of pooch, which has removed the file
        return _WRONG
    return None


class _MirrorError(Exception):
    """What one mirror did wrong; the next may do better."""


def _part(path):
    return path.with_name(path.name + ".part")


def _resuming(source, path, progress):
    """A pooch downloader that continues `path`.part and hands it over when it is as long as it must be."""

    def download(address, output_file, _pooch):
        import requests
        import urllib3

        part = _part(path)
        if part.exists() and part.stat().st_size > source.size:
            part.unlink()
        try:
            if not part.exists() or part.stat().st_size < source.size:
                _receive(address, part, source.size, progress)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise _MirrorError(f"{type(error).__name__}: {error}") from error
        size = part.stat().st_size
        if size > source.size:
            part.unlink()
            raise _MirrorError(f"sends more than the {source.size:,} bytes that are expected")
        if size < source.size:
            raise _MirrorError(f"broke off after {size:,} of {source.size:,} bytes")
        os.replace(part, output_file)

    return download


def _receive(address, part, size, progress):
    """Append to `part` what it lacks of `size` bytes; start over where the server does not honour Range."""
    import requests
    from tqdm import tqdm

    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "plasticity_jax"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        resumed = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        start = start if resumed else 0
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) != size - start:
            raise _MirrorError(f"offers {int(length):,} bytes where {size - start:,} are expected")
        hidden = None if progress else True  # None: where stderr is no terminal
        bar = tqdm(total=size, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=hidden)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                start += file.write(chunk)
                bar.update(len(chunk))
                if start > size:
                    break


def _unpack(archive, target):
    """Write the plain files that the archive has in the folder of that name, each when it is whole."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for member in tar:
            parent, _, file = member.name.removeprefix("./").rpartition("/")
            if parent == target.name and member.isfile():
                partial = pathlib.Path(scratch) / file
                with tar.extractfile(member) as packed, partial.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                os.replace(partial, target / file)
    return target
