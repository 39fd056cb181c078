"""A local HTTP server that can drop connections, ignore ranges, pause, fail, and act as a model hub."""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """The server's files, how it misbehaves, and the requests it received."""

    files: dict[str, bytes] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)  # bytes to send before closing, for the next responses
    fail_with: list[int] = field(default_factory=list)  # status codes of the next responses
    ranges: bool = True
    content_range: str = ""  # header of the next partial response, instead of the right one
    pause_at: int = 0  # bytes after which a response pauses until this is 0 again
    delay: float = 0.0  # seconds before a response
    redirects: dict[str, str] = field(default_factory=dict)  # path: the address it redirects to
    headers: dict[str, str] = field(default_factory=dict)  # more headers of each response
    endless: bool = False  # announce no size, and repeat the file until the client goes away
    gets: list[tuple[str, str | None]] = field(default_factory=list)  # (path, Range) of each GET
    address: str = ""


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            server.gets.append((self.path, self.headers.get("Range")))
            time.sleep(server.delay)
            if server.fail_with:
                self.send_error(server.fail_with.pop(0))
            else:
                self._answer(body=True)

        def _repeat(self, content: bytes) -> None:
            with suppress(OSError):
                while content:
                    self.wfile.write(content)

        def _answer(self, body: bool) -> None:
            if self.path in server.redirects:
                self.send_response(302)
                self.send_header("Location", server.redirects[self.path])
                self.end_headers()
                return
            content = server.files.get(self.path.partition("?")[0])
            if content is None:
                self.send_error(404)
                return
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(asked[1]) if asked and server.ranges else 0
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                right = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", server.content_range or right)
            if not server.endless:
                self.send_header("Content-Length", str(len(content) - start))
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')  # the hub's clients store a file under it
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if body and server.endless:
                self._repeat(content)
            elif body:
                end = start + server.drop_after.pop(0) if server.drop_after else len(content)
                if server.pause_at:
                    self.wfile.write(content[start : server.pause_at])
                    start = server.pause_at
                while server.pause_at:
                    time.sleep(0.05)
                self.wfile.write(content[start:end])
                self.close_connection = True

    return Handler


@contextmanager
def serve() -> Iterator[FileServer]:
    """Run a server on a free port of this machine."""
    server = FileServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
