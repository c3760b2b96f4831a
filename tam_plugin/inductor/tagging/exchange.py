"""One HTTP exchange with a server that is not trusted: whatever it sends, memory and what is parsed stay bounded."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tam_plugin.errors import InputError, require
from tam_plugin.files import whole_number
from tam_plugin.inductor.tagging.settings import ChatSettings

if TYPE_CHECKING:
    import httpx

MAX_BODY_BYTES = 4 << 20
"""A body is read up to here, both as it is sent and unpacked; a chat completion of 100,000 tokens has half a MB."""
_CONNECT_S = 60.0
_WBITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_WESTERN = frozenset({"iso-8859-1", "iso8859-1", "latin-1", "latin1", "us-ascii", "windows-1252", "cp1252"})


class BodyError(Exception):
    """A body that is too large or cannot be unpacked; ``oversized`` says which."""

    def __init__(self, reason: str, *, oversized: bool = False) -> None:
        super().__init__(reason)
        self.oversized = oversized


@dataclass(frozen=True)
class RawReply:
    """A whole HTTP reply.

    Attributes:
        status: HTTP status.
        headers: names in any case.
        body: unpacked, at most :data:`MAX_BODY_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text: UTF-8, or else the Western charset that is declared; what is neither is replaced."""
        try:
            return self.body.decode("utf-8")
        except UnicodeDecodeError:
            # Other charsets are not looked up: some of Python's codecs unpack data or take quadratic time.
            found = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", self.headers.get("content-type", "")[:200])
            western = found is not None and found.group(1).lower() in _WESTERN
            return self.body.decode("cp1252" if western else "utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON values.

        Raises:
            ValueError, RecursionError: it is no JSON, or is nested too deeply.
        """
        try:
            return loads(self.body)
        except UnicodeDecodeError:
            return loads(self.text)


def loads(text: str | bytes) -> Any:
    """Read JSON in which one absurdly long integer does not cost the rest: it becomes a float.

    Raises:
        ValueError, RecursionError: it is no JSON, or is nested too deeply.
    """
    return json.loads(text, parse_int=whole_number)


def open_client(settings: ChatSettings) -> httpx.AsyncClient:
    """The HTTP client of an endpoint: it follows no redirect, keeps no cookie and sends the key to the endpoint alone.

    A proxy of the environment is used for ``https`` only, where it sees neither the key nor the queries.

    Raises:
        InputError: the environment names a proxy or certificates that cannot be used.
    """
    httpx = require("httpx", needed_for="a chat endpoint", extra="tagging")
    headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
    # Packed replies save nothing at this size; "identity" leaves a server no reason to send one.
    headers |= {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        return httpx.AsyncClient(
            headers=headers,
            # For each piece; the client's own deadline holds for the whole reply.
            timeout=httpx.Timeout(settings.timeout_s, connect=min(settings.timeout_s, _CONNECT_S), pool=None),
            limits=httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            trust_env=urlsplit(settings.base_url).scheme == "https",
        )
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise InputError(
            "the environment's proxy or certificates (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) cannot be used: "
            f"{' '.join(str(error).split())}; unset or mend them"
        ) from error


async def post(http: httpx.AsyncClient, url: str, content: bytes) -> RawReply:
    """Send one request and read the reply, no further than it is bounded.

    Raises:
        BodyError: the body is too large or cannot be unpacked.
        httpx.HTTPError: the exchange failed.
    """
    async with http.stream("POST", url, content=content) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        unpack = _Unpacker(headers.get("content-encoding", ""))
        received, body = 0, bytearray()
        # aiter_bytes would unpack each piece whole, and stacked encodings multiply.
        async for piece in response.aiter_raw():
            received += len(piece)
            body += unpack(piece, MAX_BODY_BYTES - len(body))
            if max(received, len(body)) > MAX_BODY_BYTES:
                raise BodyError(f"a reply of more than {MAX_BODY_BYTES >> 20} MB", oversized=True)
        unpack.check_end()
        return RawReply(response.status_code, headers, bytes(body))


class _Unpacker:
    """Unpacks a body piece by piece. An encoding that is not known leaves the bytes as they are."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower()
        self._stream: Any = None
        self._first = b""

    def __call__(self, piece: bytes, room: int) -> bytes:
        """At most one byte more than there is room for."""
        if self._encoding not in _WBITS:
            return piece
        if self._stream is None:
            self._first += piece
            if len(self._first) < 2:
                return b""
            piece, wbits = self._first, _WBITS[self._encoding]
            # Many servers mean the bare stream by "deflate", without zlib's header.
            if self._encoding == "deflate" and (piece[0] & 15 != 8 or int.from_bytes(piece[:2], "big") % 31):
                wbits = -zlib.MAX_WBITS
            self._stream = zlib.decompressobj(wbits)
        try:
            return self._stream.decompress(piece, room + 1)
        except zlib.error:
            raise BodyError(f"a reply that is not {self._encoding}, as its headers say") from None

    def check_end(self) -> None:
        """Refuse a stream that was cut."""
        if self._first and (self._stream is None or not self._stream.eof):
            raise BodyError(f"a reply whose {self._encoding} stream ends too early")
