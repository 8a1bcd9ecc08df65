"""HTTP for sources: requests with its rough edges taken off.

The token goes to the API's own origin and nowhere else: redirects are followed by hand, and ``.netrc`` is not asked.
Proxies and certificate settings of the environment are honoured. Connecting, and every pause between two bytes, has a
time limit. Server errors and broken connections are tried again; refusals are explained.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import re
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from updater import durable, version
from updater.config import SourceConfig
from updater.errors import (
    AccessDenied,
    ConfigError,
    ContentChanged,
    Interrupted,
    RateLimited,
    ReleaseNotFound,
    SourceFailed,
)
from updater.records import read_json
from updater.sources.answers import date, host, message, origin, quota_gone, reason, reset, retry_after, shown

if TYPE_CHECKING:
    import requests

ATTEMPTS = 4
REDIRECTS = 5
SHORT_WAIT = 10.0
"""Seconds of ``Retry-After`` that are waited for; longer ones are told."""
ANSWER = 32 * 1024**2
"""Bytes of an API answer at most."""


_ACCEPT = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}


class Http:
    """Requests to one API and to the hosts that it sends us on to."""

    def __init__(self, config: SourceConfig, cache: Path | None) -> None:
        self._config = config
        self._cache = cache / "http" if cache else None
        self._origin = origin(config.api_url)
        self._token = _token(config.token_env)
        self._session: requests.Session | None = None

    def _requests(self) -> requests.Session:
        if self._session is None:
            import requests

            session = requests.Session()
            session.auth = _no_auth  # else requests takes a password for the host from ~/.netrc
            session.headers["User-Agent"] = f"updater/{version()}"
            self._session = session
        return self._session

    def json(self, url: str, *, conditional: bool = True) -> tuple[Any, Mapping[str, str]]:
        """The JSON answer to a GET, and its headers. A stored ETag makes asking again free: an answer 304 costs no quota.

        Raises:
            SourceFailed and its kinds.
        """
        stored = self._stored(url) if conditional else {}
        headers = {**_ACCEPT, "If-None-Match": stored["etag"]} if stored else _ACCEPT
        with self.get(url, headers) as answer:
            if answer.status_code == 304 and stored:
                return stored["body"], stored["headers"]
            raw = _bounded(answer, url)
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError) as failure:
                raise SourceFailed(f"{shown(url)} answered with something that is no JSON") from failure
            kept = {"Link": answer.headers.get("Link", "")}
            if conditional and answer.headers.get("ETag"):
                self._store(url, {"url": url, "etag": answer.headers["ETag"], "body": body, "headers": kept})
            return body, kept

    @property
    def has_token(self) -> bool:
        return self._token is not None

    def fresh(self, url: str) -> tuple[Any, datetime | None]:
        """The JSON answer to a GET that no cache knows, {} if there is no such thing, and the server's time.

        Raises:
            SourceFailed and its kinds.
        """
        try:
            with self.get(url, _ACCEPT) as answer:
                return json.loads(_bounded(answer, url)), date(answer)
        except ReleaseNotFound:
            return {}, None
        except (ValueError, RecursionError) as failure:
            raise SourceFailed(f"{shown(url)} answered with something that is no JSON") from failure

    def text(self, url: str, limit: int = 1024**2) -> str:
        """A small text file behind a URL, redirects followed."""
        with self.get(url, {"Accept": "application/octet-stream"}) as answer:
            return _bounded(answer, url, limit).decode("utf-8", "replace")

    def get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """An open answer to a GET: 200, 206 or 304. The caller closes it.

        Raises:
            Interrupted: the network failed, several times; ContentChanged: there is no such range; SourceFailed and its
                kinds: a refusal.
        """
        self._may_follow(self._config.api_url, url)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._follow(url, headers)
            except Interrupted:
                if attempt == ATTEMPTS:
                    raise
                _back_off(attempt)
                continue
            if answer.status_code in (200, 206, 304):
                return answer
            wait = retry_after(answer)
            again = (
                answer.status_code >= 500 if wait is None else wait <= SHORT_WAIT and not quota_gone(answer)
            )
            if not again or attempt == ATTEMPTS:
                raise self._refused(answer, url)
            answer.close()
            if wait is not None:
                time.sleep(wait)
            else:
                _back_off(attempt)
        raise AssertionError

    def _follow(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        for _ in range(REDIRECTS + 1):
            answer = self._once(url, headers)
            if answer.status_code not in (301, 302, 303, 307, 308) or "Location" not in answer.headers:
                return answer
            location = answer.headers["Location"]
            answer.close()
            try:
                target = urljoin(url, location)
            except ValueError:
                raise _no_address(url) from None
            self._may_follow(url, target)
            url = target
        raise SourceFailed(f"{shown(url)}: more than {REDIRECTS} redirects")

    def _may_follow(self, url: str, target: str) -> None:
        """Whether an address that came from another may be asked. What begins with https stays so."""
        old, new = origin(url), origin(target)
        if new[0] not in ("http", "https") or not new[1]:
            raise _no_address(url)
        if old[0] == "https" and new[0] != "https":
            raise SourceFailed(f"{shown(url)} sends us on to {shown(target)}, which is not as safe; refused")

    def _once(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        import requests
        from urllib3.exceptions import HTTPError

        _refuse_odd_proxy(url)
        sent = dict(headers)
        if self._token and origin(url) == self._origin:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            return self._requests().get(
                url, headers=sent, stream=True, allow_redirects=False,
                timeout=(self._config.connect_timeout, self._config.stall_timeout),
            )  # fmt: skip
        except (requests.RequestException, HTTPError, ValueError) as failure:
            # Without the library's own words, here and with -v: they hold whole URLs, keys and passwords included.
            if isinstance(failure, ValueError):
                raise _no_address(url) from None
            hopeless = any(it in str(failure) for it in ("CERTIFICATE_VERIFY", "WRONG_VERSION_NUMBER"))
            raise (SourceFailed if hopeless else Interrupted)(
                f"{host(url)} cannot be reached: {reason(failure)}",
                advice="look at the network (and HTTPS_PROXY, if there is a proxy), then run the command again.",
            ) from None

    def _refused(self, answer: requests.Response, url: str) -> SourceFailed:
        with answer:
            said = message(answer)
        status, where = answer.status_code, shown(url)
        name = self._config.token_env
        if status in (403, 429) and (
            quota_gone(answer) or retry_after(answer) is not None or "rate limit" in said.lower()
        ):
            return RateLimited(
                f"the request quota of {host(url)} is used up; it is restored {reset(answer)}",
                details=[said],
                advice="wait until then"
                + (
                    "."
                    if self._token
                    else f", or set {name} to an access token: 5,000 requests an hour instead of 60."
                ),
            )
        if status == 401:
            return AccessDenied(
                f"{host(url)} does not accept the token in {name}",
                details=[said],
                advice="it may be mistyped, expired or revoked: make a new one and set it.",
            )
        if status == 403:
            return AccessDenied(
                f"{where}: access is denied", details=[said], advice=f"the token in {name} may not read this."
            )
        if status in (404, 422):  # 422: a ref that names no commit
            hint = "the token may not see it" if self._token else f"or it is private: then set {name}"
            return ReleaseNotFound(f"{where}: there is no such thing ({hint})", details=[said])
        if status == 416:  # what is here is not the beginning of what is there
            return ContentChanged(f"{where} has no such part", details=[said])
        again = "in some minutes" if retry_after(answer) is None else reset(answer)
        return SourceFailed(f"{where} answered {status}", details=[said], advice=f"try again {again}.")

    def _place(self, url: str) -> Path | None:
        # Another token may see another answer, so it is part of the name (as a hash of the whole).
        key = hashlib.sha256(f"{url}\n{self._token or ''}".encode()).hexdigest()[:32]
        return self._cache / f"{key}.json" if self._cache else None

    def _stored(self, url: str) -> dict[str, Any]:
        place = self._place(url)
        found = (read_json(place) if place else None) or {}
        fits = (
            found.get("url") == url
            and isinstance(found.get("etag"), str)
            and isinstance(found.get("headers"), dict)
        )
        return found if fits and "body" in found else {}

    def _store(self, url: str, answer: dict[str, Any]) -> None:
        place = self._place(url)
        if place is None:
            return
        with contextlib.suppress(OSError):  # a cache that cannot be written is no cache
            for above in (
                place.parents[2],
                place.parents[1],
            ):  # no further up: where a root has vanished, none is made
                above.mkdir(exist_ok=True)
            place.parent.mkdir(exist_ok=True, mode=0o700)
            durable.write_quick(place, json.dumps(answer))
            place.chmod(0o600)
            for old in sorted(place.parent.iterdir(), key=lambda it: it.stat().st_mtime)[:-200]:
                old.unlink()


def _no_auth(request: Any) -> Any:
    return request


def _token(variable: str) -> str | None:
    """The access token in an environment variable, without what a file or a paste leaves around it.

    Raises:
        ConfigError: it cannot be one; it is not shown.
    """
    text = os.environ.get(variable, "").strip()
    if text and not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ConfigError(
            f"the environment variable {variable} holds no access token",
            details=["a token has no blanks and no characters but printable ASCII"],
            state="Nothing was sent.",
            advice=f"set {variable} anew, or unset it.",
        )
    return text or None


def _refuse_odd_proxy(url: str) -> None:
    """Look at the proxy that the environment names before requests and urllib3 do: each falls over others in its own way.

    Raises:
        SourceFailed: it is none. Its text is not shown: it may hold a password.
    """
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(url, get_environ_proxies(url))
    if not proxy:
        return
    scheme, name, _ = origin(proxy if "://" in proxy else f"http://{proxy}")
    socks = scheme.startswith("socks") and importlib.util.find_spec("socks")
    if name and not re.search(r"\s", proxy) and (scheme in ("http", "https") or socks):
        return
    raise SourceFailed(
        f"{host(url)} cannot be reached: the proxy in the environment is no address of a proxy for HTTP",
        advice="set HTTP_PROXY, HTTPS_PROXY or ALL_PROXY anew, as in http://HOST:PORT, or unset it; NO_PROXY names hosts that need none.",
    )


def _no_address(url: str) -> SourceFailed:
    return SourceFailed(
        f"{shown(url)} is no address of the web, or sends us on to what is none; refused",
        advice="look at [source] api_url in updater.toml, or ask whoever runs that host.",
    )


def _bounded(answer: requests.Response, url: str, limit: int = ANSWER) -> bytes:
    from requests import RequestException

    seen = bytearray()
    try:
        for chunk in answer.iter_content(64 * 1024):
            seen += chunk
            if len(seen) > limit:
                raise SourceFailed(f"{shown(url)} answered with more than {limit:,} bytes")
    except RequestException as failure:
        raise Interrupted(f"{shown(url)}: {reason(failure)}") from None
    return bytes(seen)


def _back_off(attempt: int) -> None:
    time.sleep(0.2 * 2**attempt * random.uniform(0.5, 1.0))
