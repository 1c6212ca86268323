"""The explorer with every picture: a page and pictures from this machine alone, to who knows the token."""

from __future__ import annotations

import re
import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bettersynth.core.image_paths import ImageProblem
from bettersynth.pool.images import ImageRoots
from bettersynth.report.explorer.page import Explorer
from bettersynth.report.explorer.pictures import jpeg

HOST = "127.0.0.1"
SIDE = 480
"""Longest side of a picture that is sent, in pixels."""
PICTURE = re.compile(r"picture/(\d{1,9})")
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Server(ThreadingHTTPServer):
    """Listens on loopback; its address holds a random token, without which there is nothing. It only reads."""

    daemon_threads = True

    def __init__(self, explorer: Explorer, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(18)
        self.page = explorer.page(served=True).encode()
        self.records = explorer.contents.records.select(["images", "image_root"])
        self.roots = ImageRoots(explorer.run.configuration.pool, explorer.run.layout).load()
        super().__init__((HOST, port), _Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def picture(self, row: int) -> bytes:
        """The picture of a row, made anew as JPEG. Raises ImageProblem and IndexError."""
        record = self.records.slice(row, 1).to_pylist()[0]
        return jpeg(self.roots, record["image_root"], (record["images"] or [""])[0], SIDE)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "bettersynth", ""

    def do_GET(self) -> None:
        """The page, or a picture."""
        token, _, what = self.path.removeprefix("/").partition("/")
        mine = self.headers.get("Host") == f"{HOST}:{self.server.server_port}"  # no name that leads here from elsewhere
        if not mine or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.NOT_FOUND)
        elif what == "":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
        elif found := PICTURE.fullmatch(what):
            self._picture(int(found[1]))
        else:
            self._answer(HTTPStatus.NOT_FOUND)

    def _picture(self, row: int) -> None:
        try:
            self._answer(HTTPStatus.OK, "image/jpeg", self.server.picture(row))
        except (ImageProblem, IndexError):
            self._answer(HTTPStatus.NOT_FOUND)

    def _answer(self, status: HTTPStatus, kind: str = "text/plain", body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: the token stands in each address."""
