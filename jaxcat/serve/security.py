"""Who may talk to the server: only this machine's own page and programs of its user. Pages of other sites may not.

Any page that is open in a browser can send requests to 127.0.0.1, and the name of any site can be made to point there.
So the Host header must be one of the server's own names, a foreign Origin or Sec-Fetch-Site is refused, and every
request but GET /healthz needs the token of this start. The functions here take plain values and do no input or output.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs

# Header name and value, as ASGI has them: names in lower case.
Headers = Sequence[tuple[bytes, bytes]]

OPEN = "/healthz"  # the one path that needs no token
ENTRANCE = "/"  # the one path that takes the token from the address
READING = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LEAST_TOKEN = 32  # characters of a token that somebody chose
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")

# No inline code or style, nothing from elsewhere, no frame around the page. data: are images that answers contain.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# Sent with every answer. There are no Access-Control headers, so browsers show no answer to another site.
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}

HOW_TO_ENTER = (
    "open the address that jaxcat.serve printed at its start; a program sends the token of the file named there as "
    "Authorization: Bearer TOKEN"
)


class Policy(NamedTuple):
    """What a server accepts.

    Attributes:
        token: of this start.
        port: that the server listens on; also part of the cookie's name, because cookies of all ports are one set.
        names: of the host, as they stand in a Host header before the port, in lower case.
        any_address: whether any IP address is accepted as a name too; no site's name can be one.
    """

    token: str
    port: int
    names: frozenset[str] = frozenset(LOOPBACK)
    any_address: bool = False

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token."""
        return f"jaxcat-{self.port}"


class Refusal(NamedTuple):
    """Why a request is refused: the HTTP status, and a sentence for the one who sent it."""

    status: HTTPStatus
    reason: str


def new_token() -> str:
    """A token that nobody can guess: 256 random bits as 43 characters that need no escape in an address."""
    return secrets.token_urlsafe(32)


def chosen_token_problem(token: str) -> str:
    """What is wrong with a token that somebody chose, or ""."""
    if not _TOKEN.fullmatch(token):
        return "may have letters, digits, - and _ only"
    return "" if len(token) >= LEAST_TOKEN else f"has {len(token)} characters, fewer than {LEAST_TOKEN}"


def refusal(policy: Policy, *, method: str, path: str, headers: Headers) -> Refusal | None:
    """Why a request is refused; None if it may be answered. Call `entered` before it."""
    found = foreign(policy, headers)
    if found is not None or (path == OPEN and method in READING):
        return found
    allowed = _bearer(policy, headers) or (method in READING and _has_cookie(policy, headers))
    return None if allowed else Refusal(HTTPStatus.FORBIDDEN, HOW_TO_ENTER)


def foreign(policy: Policy, headers: Headers) -> Refusal | None:
    """Why a request does not come from the server's own page or from a program; None if it does."""
    hosts = _values(headers, b"host")
    if len(hosts) != 1 or not _is_own_host(policy, hosts[0]):
        return Refusal(HTTPStatus.FORBIDDEN, "the Host header is none of this server's names")
    if any(origin != f"http://{hosts[0]}" for origin in _values(headers, b"origin")):
        return Refusal(HTTPStatus.FORBIDDEN, "the request comes from the page of another origin")
    if any(site not in ("same-origin", "none") for site in _values(headers, b"sec-fetch-site")):
        return Refusal(
            HTTPStatus.FORBIDDEN,
            "the request comes from the page of another site; if you followed a link, paste its address instead",
        )
    return None


def entered(policy: Policy, *, method: str, path: str, query: bytes) -> bool:
    """Whether a request is for the printed address with the right token, which then becomes a cookie."""
    if method != "GET" or path != ENTRANCE:
        return False
    return any(_same(token, policy.token) for token in parse_qs(query.decode("latin-1")).get("token", ()))


def cookie_header(policy: Policy) -> str:
    """The Set-Cookie header that gives a browser the token: hidden from scripts, and never sent for another site."""
    return f"{policy.cookie}={policy.token}; Path=/; HttpOnly; SameSite=Strict"


def _is_own_host(policy: Policy, host: str) -> bool:
    name, port = _parted(host.lower())
    if port != str(policy.port) and (port or policy.port != 80):  # browsers leave out the usual port
        return False
    if name in policy.names:
        return True
    return policy.any_address and _is_address(name)


def _parted(host: str) -> tuple[str, str]:
    """A host as name and port, either of which may be ""."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\[\]:]*)(?::([0-9]*))?", host)
    return (found[1], found[2] or "") if found else ("", "")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _bearer(policy: Policy, headers: Headers) -> bool:
    sent = _values(headers, b"authorization")
    kind, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return kind.lower() == "bearer" and _same(token.strip(), policy.token)


def _has_cookie(policy: Policy, headers: Headers) -> bool:
    pairs = (pair.strip().partition("=") for sent in _values(headers, b"cookie") for pair in sent.split(";"))
    return any(name == policy.cookie and _same(value, policy.token) for name, _, value in pairs)


def _same(given: str, token: str) -> bool:
    """Whether two tokens are equal; the time that this takes does not depend on how many characters are."""
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key == name]


def own_names(host: str, others: Iterable[str] = ()) -> frozenset[str]:
    """The names under which a server that listens on `host` is called, as they stand in a Host header."""
    written = f"[{host}]" if ":" in host else host
    return frozenset(name.lower() for name in (*LOOPBACK, written, *others) if name)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
