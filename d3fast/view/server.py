# SPDX-License-Identifier: Apache-2.0
"""The server of ``d3fast view``: GET and HEAD on loopback, HTML alone, nothing from the disk as is.

A web page elsewhere may send requests here: a request whose ``Host`` is not this server's address
is refused (DNS rebinding), no other origin may read, embed or frame an answer, and no request
changes anything. Addresses name runs by keys of the search in ``folders``, never by paths.
"""

import errno
import threading
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from d3fast.io.untrusted import error_text, printable
from d3fast.view.listing import Library
from d3fast.view.pages import compare_page, error_page, list_page, run_page
from d3fast.view.query import Query, parse_query

LOOPBACK = "127.0.0.1"
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TIMEOUT = 30.0  # seconds that a client may take to send a request


class _Refused(Exception):
    """A request that gets an error page."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class ViewServer(ThreadingHTTPServer):
    """Serve the runs of a folder on loopback.

    Args:
        root: an existing folder.
        port: 0 for any free one.

    Raises:
        ValueError: the folder is missing, or the port is in use.
        OSError: a port that may not be opened.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        if not root.is_dir():
            raise ValueError(f"there is no folder {printable(root)}")
        self.library = Library(root.resolve())
        # Figures are drawn with settings of the whole process.
        self.lock = threading.Lock()
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ValueError(
                f"port {port} is in use: choose another one with --port, or 0 for any free one"
            ) from None

    @property
    def address(self) -> str:
        """The address of the list."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The values of ``Host`` that are answered."""
        return tuple(f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that a browser closed."""


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    timeout = _TIMEOUT

    def version_string(self) -> str:
        return "d3fast"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the terminal free."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is no HTTP, or of a method other than GET and HEAD."""
        self.close_connection = True
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(status, error_page(status.phrase, "Only GET and HEAD are answered.", "/"))

    def _answer(self) -> None:
        try:
            with self.server.lock:
                status, text = HTTPStatus.OK, self._page()
        except _Refused as refused:
            status = refused.status
            text = error_page(status.phrase, str(refused), "/")
        except (ValueError, OSError) as error:
            status = HTTPStatus.BAD_REQUEST
            text = error_page("This cannot be shown", error_text(error), "/")
        except Exception:  # a defect must not end the server
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            text = error_page(status.phrase, "A defect in d3fast; see the terminal.", "/")
        self._send(status, text)

    def _page(self) -> str:
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            text = f"The address of this page is {self.server.address}"
            raise _Refused(HTTPStatus.FORBIDDEN, text)
        parts = urlsplit(self.path)
        query = parse_query(parts.query)
        if parts.path == "/":
            return list_page(self.server.library, query)
        if parts.path == "/compare":
            return self._with_runs(query, compare=True)
        if parts.path == "/run":
            return self._with_runs(query)
        raise _Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _with_runs(self, query: Query, compare: bool = False) -> str:
        library = self.server.library
        home = query.address()
        known = library.found().runs
        if any(key not in known for key in query.runs):
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such run.")
        if compare:
            return compare_page(library, query, home)
        if len(query.runs) != 1:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such run.")
        return run_page(known[query.runs[0]], library.root, "/")

    def _send(self, status: HTTPStatus, text: str) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
