"""Downloads from servers that cut, redirect, lie, or never end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.images.conftest import Import, digest_of, member, tar_of
from tests.images.test_containers import nothing_left
from virtmgr.domain.errors import ImageError
from virtmgr.images.blobs import BlobStore
from virtmgr.images.importer import Importer
from virtmgr.ports.images import ImportRequest

CONTENT = tar_of(member("usr/a", bytes(range(256)) * 4000))


class Handler(BaseHTTPRequestHandler):
    ranges: list[str]

    def do_GET(self) -> None:
        getattr(self, "answer_" + self.path.strip("/"))()

    def log_message(self, format: str, *args: object) -> None:
        """Be silent."""

    def answer_whole(self) -> None:
        self.send(200, CONTENT)

    def answer_cut(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked or "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 400_000])

    def answer_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            try:
                self.wfile.write(bytes(2**20))
            except OSError:
                return

    def answer_file(self) -> None:
        self.redirect("file:///etc/passwd")

    def answer_loop(self) -> None:
        self.redirect("/loop")

    def answer_moved(self) -> None:
        self.redirect("/whole")

    def answer_missing(self) -> None:
        self.send(404, b"")

    def redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server() -> Iterator[str]:
    Handler.ranges = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["whole", "moved", "cut"])
def test_download(path: str, server: str, do_import: Import) -> None:
    checksum = digest_of(CONTENT)
    manifest = do_import(source=f"{server}/{path}", checksum=checksum)
    assert manifest.layers[0].diff_id == checksum
    assert Handler.ranges in ([], ["", "bytes=400000-", "bytes=800000-"])


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("endless", "more than"),
        ("file", "redirects from http to file"),
        ("loop", "too often"),
        ("missing", "404"),
    ],
)
def test_refused(path: str, why: str, server: str, do_import: Import, store: BlobStore) -> None:
    with pytest.raises(ImageError, match=why):
        do_import(source=f"{server}/{path}")
    assert nothing_left(store)


def test_wrong_checksum(server: str, do_import: Import, store: BlobStore) -> None:
    with pytest.raises(ImageError, match="checksum"):
        do_import(source=f"{server}/whole", checksum=digest_of(b""))
    assert nothing_left(store)


def cancel_after(calls: int) -> Callable[[], bool]:
    left = iter(range(calls))
    return lambda: next(left, None) is None


@pytest.mark.parametrize("calls", [0, 1])
def test_cancelled(calls: int, server: str, store: BlobStore) -> None:
    request = ImportRequest(source=f"{server}/endless")
    with pytest.raises(ImageError) as failure:
        Importer(store=store).import_image(request, lambda *_: None, cancel_after(calls))
    assert failure.value.code == "image_cancelled"
    assert nothing_left(store)
