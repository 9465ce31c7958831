"""Limits of what a browser may send: the size of a request, and how many uploads are kept."""

from __future__ import annotations

import contextlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rivals.studio.input_images import MAX_BYTES

MAX_BODY = MAX_BYTES + 100_000  # of a request: an upload with the headers of its parts
MAX_KEPT = 8  # uploads on the disk; the oldest are removed
MAX_AT_ONCE = 4  # uploads being received


class UploadLimits:
    """ASGI middleware that refuses large requests and many uploads at once, and removes old uploads.

    So the folder never holds more than ``MAX_KEPT`` files, and ``MAX_AT_ONCE`` bodies that are being received.

    Args:
        app: What receives the uploads, at a path that ends in ``/upload``.
        folder: Where it stores them.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self._folder = folder
        self._receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        length = Request(scope).headers.get("content-length", "")
        if not length.isdecimal():  # a body of unknown length; the server holds others to what they announce
            await PlainTextResponse("The request has no Content-Length.\n", 411)(scope, receive, send)
            return
        if int(length) > MAX_BODY:
            limit = f"The request has {int(length):,} bytes: up to {MAX_BYTES // 10**6} MB are received.\n"
            await PlainTextResponse(limit, 413)(scope, receive, send)
            return
        if not scope["path"].endswith("/upload"):
            await self._app(scope, receive, send)
            return
        if self._receiving >= MAX_AT_ONCE:
            await PlainTextResponse("Too many uploads at once: try again.\n", 503)(scope, receive, send)
            return
        self._receiving += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._receiving -= 1
            self._remove_old()

    def _remove_old(self) -> None:
        found = []
        for path in self._folder.rglob("*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                if path.is_file():
                    found.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(found, reverse=True)[MAX_KEPT:]:
            with contextlib.suppress(OSError):
                path.unlink()
