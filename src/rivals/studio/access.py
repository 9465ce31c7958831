"""Who may use the page: those who have its token, from the page itself, at an address of the studio.

Three checks of every request, each against something else:

- the ``Host`` header, against DNS rebinding: a foreign page whose own name suddenly leads to this machine;
- the ``Origin`` header, against requests that a foreign page sends here, such as a form or an upload;
- a token, against everybody else who can reach the port, such as other users of the machine.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rivals.base.errors import UserError

LOOPBACK_NAMES = ("127.0.0.1", "localhost")
PARAMETER = "token"  # of the address that is opened


@dataclass(frozen=True)
class AllowedHosts:
    """The names and addresses by which a studio may be reached.

    Attributes:
        names: In lower case, without a port.
        any_address: Any numeric address too: the studio is served at all addresses of the machine. No foreign page can
            be at a number, so rebinding is impossible there.
    """

    names: frozenset[str]
    any_address: bool = False

    @classmethod
    def of(cls, served_at: str, more: Iterable[str] = ()) -> AllowedHosts:
        """Where a studio served at an address may be reached, and by ``more`` names.

        Raises:
            UserError: one of them is not a name.
        """
        names = {served_at.lower(), *(each.lower() for each in more)}
        wrong = next((each for each in more if not each or _host_of(each) != each.lower()), None)
        if wrong is not None:
            raise UserError(f"'{wrong}' is not the name of a host: give it without http:// and port")
        if _is_loopback(served_at):
            names.update(LOOPBACK_NAMES)
        is_everywhere = served_at in ("0.0.0.0", "::", "")
        if is_everywhere:
            names.update(("localhost", socket.gethostname().lower()))
        return cls(frozenset(names), is_everywhere)

    def __contains__(self, host: str) -> bool:
        return host in self.names or (self.any_address and _is_address(host))


class AccessControl:
    """ASGI middleware that refuses a request from another host, from another page, or without the token.

    The token may be in the address (``?token=...``), and is then kept in a cookie that scripts cannot read and other
    sites cannot send. Ports are not told apart, as a tunnel may change them; but browsers also send a cookie to other
    ports of the same host, so its name is that of one studio.

    Args:
        app: What to protect.
        hosts: Where it may be reached.
        token: What a user must know.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, token: str) -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._cookie = f"rivals-studio-{hashlib.sha256(token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no use for WebSockets
            await send({"type": "websocket.close", "code": 1008})
            return
        connection = HTTPConnection(scope)
        if refusal := self._refusal(connection):
            await PlainTextResponse(refusal, 403, {"X-Content-Type-Options": "nosniff"})(scope, receive, send)
            return

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        is_new = PARAMETER in connection.query_params
        await self._app(scope, receive, send_with_cookie if is_new else send)

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        return [(b"set-cookie", cookie.encode()), (b"referrer-policy", b"no-referrer")]

    def _refusal(self, connection: HTTPConnection) -> str:
        """Why a request is refused; empty if it is not."""
        given = connection.headers.getlist("host")
        host = _host_of(given[0]) if len(given) == 1 else ""
        if not host or host not in self._hosts:
            return (
                f"This studio is not at the host {given[0][:80]!a}. Open the address that 'rivals studio' printed, or "
                "start it with --allow-host NAME.\n"
                if given
                else "The request names no host.\n"
            )
        origins = connection.headers.getlist("origin")
        if any(urlsplit(origin).netloc.lower() != given[0].lower() for origin in origins):
            return "The request comes from another page.\n"
        known = (connection.query_params.get(PARAMETER), connection.cookies.get(self._cookie))
        if not any(each and secrets.compare_digest(each.encode(), self._token.encode()) for each in known):
            return "The token is missing or wrong. Open the address that 'rivals studio' printed, with its token.\n"
        return ""


def _host_of(netloc: str) -> str:
    """The name or address in a ``Host`` header, in lower case and without its port; empty if it is malformed."""
    try:
        parts = urlsplit(f"//{netloc}")
        is_plain = parts.netloc == netloc and "@" not in netloc and (parts.port or 0) >= 0
    except ValueError:
        return ""
    return (parts.hostname or "") if is_plain else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
