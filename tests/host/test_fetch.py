"""Downloads, against a local server that honours Range or does not, breaks off, lies, and is not there."""

import gzip
import hashlib
import http.server
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from plasticity_jax.host import data, fetch
from plasticity_jax.host.data import DataError
from plasticity_jax.host.fetch import Source, fetch_file

ROOT = pathlib.Path(__file__).parents[2]
BYTES = np.random.default_rng(0).bytes(300_000)  # more than one chunk


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, as the knobs of the server say; notes (path, Range) of each request."""

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        body = server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.end_headers()
        stop = len(body) if server.break_after is None else start + server.break_after
        self.wfile.write(body[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    """Start servers: serve({path: bytes}) -> server with .url, .requests and knobs."""
    servers = []

    def start(files):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.files, server.requests, server.ranges, server.lengths = files, [], True, True
        server.break_after = server.encoding = None
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("PLASTICITY_JAX_MIRROR", "PLASTICITY_JAX_DATA", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def source(*servers, file="d/x.bin", body=BYTES, unpacks=""):
    mirrors = tuple(f"{server.url}/{file}" for server in servers)
    return Source(file, len(body), hashlib.sha256(body).hexdigest(), mirrors, unpacks)


def left_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_downloaded_once_and_then_left_alone(serve, tmp_path):
    server = serve({"/d/x.bin": BYTES})
    for _ in range(2):
        assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert server.requests == [("/d/x.bin", None)] and left_in(tmp_path) == ["d/x.bin"]


def interrupted(server, tmp_path, after=100_000):
    """A download that broke off; the bytes that it kept."""
    server.break_after = after
    with pytest.raises(DataError, match=r"x\.bin: no mirror delivered it; the same command goes on after"):
        fetch_file(source(server), tmp_path)
    assert left_in(tmp_path) == ["d/x.bin.part"]
    server.break_after = None
    server.requests.clear()
    return (tmp_path / "d/x.bin.part").stat().st_size


@pytest.mark.parametrize("lengths", [True, False])
def test_only_the_missing_bytes_are_asked_for_after_an_interruption(serve, tmp_path, lengths):
    server = serve({"/d/x.bin": BYTES})
    server.lengths = lengths
    kept = interrupted(server, tmp_path)
    assert 0 < kept <= 100_000
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert server.requests == [("/d/x.bin", f"bytes={kept}-")] and left_in(tmp_path) == ["d/x.bin"]


def test_a_server_without_ranges_starts_over(serve, tmp_path):
    server = serve({"/d/x.bin": BYTES})
    server.ranges = False
    interrupted(server, tmp_path)
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert len(server.requests) == 1


def test_the_next_mirror_goes_on_where_the_first_broke_off(serve, tmp_path):
    first, second = serve({"/d/x.bin": BYTES}), serve({"/d/x.bin": BYTES})
    first.break_after = 100_000
    said = []
    assert fetch_file(source(first, second), tmp_path, say=said.append).read_bytes() == BYTES
    assert second.requests == [("/d/x.bin", "bytes=100000-")]
    assert len(said) == 1 and first.url in said[0]


def test_a_whole_part_needs_no_request_and_an_overlong_one_is_discarded(serve, tmp_path):
    server = serve({"/d/x.bin": BYTES})
    part = tmp_path / "d/x.bin.part"
    part.parent.mkdir()
    part.write_bytes(BYTES)
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert server.requests == []
    (tmp_path / "d/x.bin").unlink()
    part.write_bytes(BYTES + b"x")
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert server.requests == [("/d/x.bin", None)]


def test_a_bad_beginning_is_replaced(serve, tmp_path):
    server = serve({"/d/x.bin": BYTES})
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.bin.part").write_bytes(bytes(1_000))
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES
    assert server.requests == [("/d/x.bin", "bytes=1000-"), ("/d/x.bin", None)]


def test_a_wrong_checksum_names_the_mirror_and_leaves_nothing(serve, tmp_path):
    server = serve({"/d/x.bin": bytes(len(BYTES))})
    with pytest.raises(DataError, match=rf"{server.url}/d/x\.bin: delivered a file with a wrong SHA-256"):
        fetch_file(source(server), tmp_path)
    assert left_in(tmp_path) == []


def test_a_damaged_file_survives_until_a_good_one_has_come(serve, tmp_path):
    server = serve({"/d/x.bin": bytes(len(BYTES))})
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x.bin").write_bytes(b"damaged")
    with pytest.raises(DataError, match="wrong SHA-256"):
        fetch_file(source(server), tmp_path)
    assert (tmp_path / "d/x.bin").read_bytes() == b"damaged"
    server.files["/d/x.bin"] = BYTES
    assert fetch_file(source(server), tmp_path).read_bytes() == BYTES


@pytest.mark.parametrize("lengths", [True, False])
def test_a_page_in_place_of_the_file(serve, tmp_path, lengths):
    server = serve({"/d/x.bin": b"<html>please log in</html>" * 20_000})
    server.lengths = lengths
    says = "offers 520,000 bytes where 300,000" if lengths else "sends more than the 300,000 bytes"
    with pytest.raises(DataError, match=says):
        fetch_file(source(server), tmp_path)
    assert left_in(tmp_path) == []


def test_a_mirror_without_the_file_and_one_that_is_down(serve, tmp_path):
    empty, whole = serve({}), serve({"/d/x.bin": BYTES})
    down = serve({})
    down.shutdown()
    down.server_close()
    said = []
    assert fetch_file(source(empty, down, whole), tmp_path, say=said.append).read_bytes() == BYTES
    assert len(said) == 2 and "404" in said[0] and "Connection" in said[1]
    with pytest.raises(DataError, match=r"(?s)x\.bin: no mirror.*--base_url.*404.*Connection"):
        fetch_file(source(empty, down), tmp_path / "other")


def test_gzip_as_content_encoding_is_not_undone(serve, tmp_path):
    body = gzip.compress(BYTES)
    server = serve({"/d/x.gz": body})
    server.encoding = "gzip"  # what some servers say of every .gz file
    assert fetch_file(source(server, file="d/x.gz", body=body), tmp_path).read_bytes() == body


def test_a_mirror_of_ones_own(serve, tmp_path, monkeypatch):
    public, own = serve({"/d/x.bin": BYTES}), serve({"/base/d/x.bin": BYTES})
    fetch_file(source(public), tmp_path / "a", base_url=f"{own.url}/base/")
    monkeypatch.setenv("PLASTICITY_JAX_MIRROR", f"{own.url}/base")
    fetch_file(source(public), tmp_path / "b")
    assert public.requests == [] and len(own.requests) == 2
    fetch_file(source(public), tmp_path / "c", base_url=public.url)
    assert len(public.requests) == 1


def test_a_disk_that_refuses(serve, tmp_path, monkeypatch):
    server = serve({"/d/x.bin": BYTES})
    (tmp_path / "d").write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"x\.bin: cannot be written .*free space, or name another --folder"):
        fetch_file(source(server), tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch.os, "replace", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        fetch_file(source(server), tmp_path / "other")


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def test_an_archive_is_unpacked_and_nothing_leaves_its_folder(serve, tmp_path):
    wanted = {"c/a.bin": b"new", "./c/b.bin": b"b"}
    unwanted = {
        "../evil": b"x",
        "/evil": b"x",
        "c/../../evil": b"x",
        "d/evil": b"x",
        "c/sub/evil": b"x",
        "c/link": None,
    }
    body = archive(wanted | unwanted)
    server = serve({"/c.tar.gz": body})
    folder = tmp_path / "data"
    (folder / "c").mkdir(parents=True)
    (folder / "c/a.bin").write_bytes(b"damaged")
    (folder / "c/mine.txt").write_bytes(b"kept")
    fetch_file(source(server, file="c.tar.gz", body=body, unpacks="c"), folder)
    assert left_in(tmp_path) == ["data/c/a.bin", "data/c/b.bin", "data/c/mine.txt"]
    assert (folder / "c/a.bin").read_bytes() == b"new" and not (folder / "c/link").is_symlink()


def test_an_archive_that_lies_there_is_used_and_kept(serve, tmp_path):
    body = archive({"c/a.bin": b"a"})
    (tmp_path / "c.tar.gz").write_bytes(body)
    server = serve({})
    fetch_file(source(server, file="c.tar.gz", body=body, unpacks="c"), tmp_path)
    assert left_in(tmp_path) == ["c.tar.gz", "c/a.bin"] and server.requests == []


@pytest.fixture
def tiny(serve, monkeypatch):
    """A CIFAR-10 of one image per file, with a server that has it; returns the server."""
    monkeypatch.setitem(data.LAYOUTS, "cifar10", data.LAYOUTS["cifar10"]._replace(train_records=1, test_records=1))
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    body = archive({f"cifar-10-batches-bin/{file}": bytes([i]) * 3_073 for i, file in enumerate(files)})
    server = serve({"/cifar-10-binary.tar.gz": body})
    entry = source(server, file="cifar-10-binary.tar.gz", body=body, unpacks="cifar-10-batches-bin")
    monkeypatch.setitem(fetch.SOURCES, "cifar10", (entry,))
    return server


def test_a_data_set_is_fetched_read_left_alone_and_mended(tiny, tmp_path):
    said = []
    with pytest.raises(DataError, match=r"fetch_data\.py cifar10"):
        data.load("cifar10", tmp_path)
    fetch.fetch("cifar10", tmp_path, say=said.append)
    assert list(data.load("cifar10", tmp_path).arrays["train"]["y"]) == [0, 1, 2, 3, 4]
    fetch.fetch("cifar10", tmp_path, say=said.append)
    assert len(tiny.requests) == 1 and "complete" in said[0] and "left alone" in said[1]
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"")
    fetch.fetch("cifar10", tmp_path, say=said.append)
    assert len(tiny.requests) == 2 and data.load("cifar10", tmp_path).classes == 10


def test_a_recompressed_copy_is_left_alone(tiny, tmp_path):
    fetch.fetch("cifar10", tmp_path, say=str)
    file = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    file.with_name("test_batch.bin.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    fetch.fetch("cifar10", tmp_path, say=str)
    assert len(tiny.requests) == 1


def test_what_cannot_be_downloaded():
    with pytest.raises(ValueError, match=r"'cifar' cannot be downloaded\. Did you mean 'cifar"):
        fetch.fetch("cifar")
    with pytest.raises(ValueError, match=r"'digits' cannot be downloaded\. There are mnist"):
        fetch.fetch("digits")


def test_the_table_of_sources():
    files = [entry for entries in fetch.SOURCES.values() for entry in entries]
    assert set(fetch.SOURCES) == set(data.LAYOUTS)
    assert len({entry.file for entry in files}) == len({entry.sha256 for entry in files}) == len(files) == 10
    for entry in files:
        assert len(bytes.fromhex(entry.sha256)) == 32 and len(entry.mirrors) >= 2 and entry.size > 4_000
        assert all(address.endswith(entry.file.rpartition("/")[2]) for address in entry.mirrors)
    for name, entries in fetch.SOURCES.items():  # each lands where `load` looks first
        assert {entry.unpacks or entry.file.partition("/")[0] for entry in entries} == {data.LAYOUTS[name].folders[0]}


def script(*arguments):
    command = [sys.executable, str(ROOT / "scripts/fetch_data.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_the_script_reports_each_failure_and_fails(serve, tmp_path):
    server = serve({})
    done = script("mnist", "cifar100", "cifar", "--folder", str(tmp_path), "--base_url", server.url)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for text in ("mnist/train-images-idx3-ubyte.gz: no mirror", "cifar-100-binary.tar.gz: no mirror", "mean 'cifar"):
        assert text in done.stderr
    assert done.stderr.count("put the file there yourself, or name a mirror with --base_url") == 2
    paths = [path for path, _ in server.requests]
    assert paths == ["/mnist/train-images-idx3-ubyte.gz", "/cifar-100-binary.tar.gz"]
    assert "name one or more of mnist" in script().stderr
