"""What addresses, headers and failures say: a stranger's, so that none of them may break anything or give a secret away."""

from __future__ import annotations

import contextlib
import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests

TOLD = 7 * 86400.0
"""Seconds of waiting beyond which an answer is not believed."""


def origin(url: str) -> tuple[str, str | None, int]:
    """Scheme, host and port: what a token is good for. ``("", None, 0)`` for what is no address."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", None, 0


def shown(url: str) -> str:
    """A URL for people: without its user and its query, which may hold a key."""
    try:
        return urlsplit(url)._replace(netloc=host(url), query="", fragment="").geturl()
    except ValueError:
        return "an unreadable address"


def host(url: str) -> str:
    """Host and port of a URL, without its user. Raises ValueError for what is no address."""
    return urlsplit(url).netloc.rpartition("@")[2]


def reason(failure: BaseException) -> str:
    """Why a request failed, in people's words; never in the library's, which hold URLs and headers."""
    text = str(failure)
    for words, meaning in (
        (
            "ProxyError",
            "the proxy cannot be reached, or does not let us through",
        ),  # first: its text holds the others'
        ("NameResolution", "its name cannot be resolved (no network, or no DNS)"),
        ("getaddrinfo", "its name cannot be resolved (no network, or no DNS)"),
        ("Connection refused", "the connection was refused"),
        ("CERTIFICATE_VERIFY", "its certificate cannot be verified"),
        ("SSLError", "no secure connection (TLS) can be made"),
        ("ConnectTimeout", "no connection within the time limit"),
        ("Read timed out", "it stopped answering"),
        ("RemoteDisconnected", "it closed the connection"),
        ("IncompleteRead", "the connection broke off"),
        ("Connection reset", "the connection was reset"),
        ("unreachable", "the network is unreachable"),
    ):
        if words in text or words in type(failure).__name__:
            return meaning
    return f"the request failed ({type(failure).__name__})"


def clean(text: str) -> str:
    """A stranger's text that can be written down: lone surrogates, which JSON can hold and UTF-8 cannot, are replaced."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def message(answer: requests.Response) -> str:
    """The explanation in an error's body, as GitHub documents it; on one line, bounded."""
    from urllib3.exceptions import HTTPError

    # Nothing broader: a request to cancel comes as an exception too.
    with contextlib.suppress(HTTPError, OSError, ValueError, RecursionError):
        body = json.loads(answer.raw.read(64 * 1024, decode_content=True))
        if isinstance(body, dict):
            return clean(" ".join(str(body.get("message", "")).split())[:300])
    return f"status {answer.status_code}"


def quota_gone(answer: requests.Response) -> bool:
    return answer.headers.get("x-ratelimit-remaining") == "0"


def retry_after(answer: requests.Response) -> float | None:
    """Seconds of ``Retry-After`` (RFC 9110, section 10.2.3: a number or a date); None without one."""
    value = answer.headers.get("Retry-After")
    if value is None:
        return None
    if (seconds := number(value)) is not None:
        return float(seconds)
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def date(answer: requests.Response) -> datetime | None:
    """When the server says that it answered (RFC 9110, section 6.6.1)."""
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(answer.headers.get("Date", "")).astimezone(UTC)
    return None


def number(value: str) -> int | None:
    """A number in a header; None if it is none, or larger than anything that a header counts."""
    return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None


def reset(answer: requests.Response) -> str:
    wait = retry_after(answer)
    if wait is None and (at := number(answer.headers.get("x-ratelimit-reset", ""))) is not None:
        wait = at - time.time()
    if wait is None or wait > TOLD:
        return "later"
    at_local = datetime.fromtimestamp(time.time() + max(0.0, wait)).astimezone()
    return f"at {at_local:%H:%M:%S} (in {max(0, round(wait / 60))} minutes)"
