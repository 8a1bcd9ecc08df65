"""Who may call: the token, sessions, one-time login links, and the token against forged forms.

The server remembers the token, in a file of mode 0600, and who logged out. Sessions are signed with a key derived from the token, so a
new one ends them all, and a restart of the server ends none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from itsdangerous import BadData, URLSafeTimedSerializer

from updater import durable
from updater.layout import Layout
from updater.web.problems import Refused

SESSION_SECONDS = 7 * 86400
"""How long a login lasts."""

LINK_SECONDS = 600
"""How long a login link can be used."""

_ENDED = ".ended"
"""The end of the name of a file that stands for a session that was logged out."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
"""What :func:`secrets.token_urlsafe` makes of 32 bytes."""


def token(layout: Layout, *, renew: bool = False) -> str:
    """The token of this root; made, in a file that only its owner can read, if there is none yet or ``renew`` says so.

    Raises:
        OSError: it can be neither read nor made.
    """
    path = layout.token
    with contextlib.suppress(FileNotFoundError):
        found = durable.read(path, limit=4096).decode(errors="replace").strip()
        if _TOKEN.fullmatch(found) and not renew:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:  # somebody copied it carelessly
                os.chmod(path, 0o600)
            return found
    made = secrets.token_urlsafe(32)
    durable.make_directory(layout.own)
    durable.write(path, made + "\n", mode=0o600)
    return made


def login_code(layout: Layout) -> str:
    """A code that logs a browser in once, within :data:`LINK_SECONDS`. Only its digest is written down."""
    code = secrets.token_urlsafe(24)
    durable.make_directory(layout.logins, mode=0o700)
    durable.write(layout.logins / _digest(code), "", mode=0o600)
    return code


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class Session:
    """A logged-in browser. ``csrf`` must come with every change that it asks for."""

    id: str
    csrf: str


class Access:
    """Decides who is let in. One for each server."""

    def __init__(self, layout: Layout, *, public_url: str | None = None) -> None:
        self.layout = layout
        self._take(token(layout))
        self._seen = self._sign()
        # Cookies know no ports: two dashboards on one host must not log each other out.
        self.cookie = f"updater_{hashlib.sha256(str(layout.root).encode()).hexdigest()[:8]}"
        self.secure = bool(public_url and public_url.startswith("https:"))
        self._ended: set[str] = set()
        self._waiting = 0

    def _take(self, token: str) -> None:
        self.token = token
        key = hmac.digest(token.encode(), b"sessions", "sha256")
        self._sessions = URLSafeTimedSerializer(key, salt="updater-session")

    def _sign(self) -> object:
        """What changes when the token's file does."""
        with contextlib.suppress(OSError):
            found = self.layout.token.stat()
            return found.st_ino, found.st_mtime_ns, found.st_size
        return None

    def _renew(self) -> None:
        """Take the token that another process made. One that is gone or damaged changes nothing: the root may have vanished."""
        if (sign := self._sign()) in (None, self._seen):
            return
        self._seen = sign
        with contextlib.suppress(OSError):
            found = durable.read(self.layout.token, limit=4096).decode(errors="replace").strip()
            if _TOKEN.fullmatch(found) and found != self.token:
                self._take(found)

    def is_token(self, given: str) -> bool:
        self._renew()
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def open_session(self) -> tuple[str, Session]:
        """A new session: the cookie's value, and what it stands for."""
        self._renew()
        identifier = secrets.token_urlsafe(16)
        value = self._sessions.dumps(identifier)
        return str(value), self._session(identifier)

    def session(self, cookie: str | None) -> Session | None:
        """The session that a cookie stands for; None if it is none of ours, too old or logged out."""
        self._renew()
        with contextlib.suppress(BadData, ValueError):
            identifier = self._sessions.loads(cookie or "", max_age=SESSION_SECONDS)
            if isinstance(identifier, str) and not self._has_ended(identifier):
                return self._session(identifier)
        return None

    def _has_ended(self, identifier: str) -> bool:
        return identifier in self._ended or self._end_of(identifier).exists()

    def _end_of(self, identifier: str) -> Path:
        return self.layout.logins / f"{_digest(identifier)}{_ENDED}"

    def _session(self, identifier: str) -> Session:
        return Session(
            identifier, hmac.new(self.token.encode(), f"csrf {identifier}".encode(), "sha256").hexdigest()
        )

    def end_session(self, session: Session) -> None:
        """Log a browser out: its cookie is worth nothing any more, to the next server neither."""
        self._ended.add(session.id)
        with contextlib.suppress(OSError):  # a full disk must not keep anybody logged in here
            self.layout.logins.mkdir(
                mode=0o700, exist_ok=True
            )  # not with its parents: the root may have vanished
            durable.write(self._end_of(session.id), "", mode=0o600)

    def use_code(self, code: str) -> bool:
        """Whether a login link may be used; afterwards it may not."""
        path = self.layout.logins / _digest(code)
        try:
            age = time.time() - path.stat().st_mtime
            os.unlink(path)  # of two that come at once only one succeeds
        except OSError:
            return False
        return -60 < age < LINK_SECONDS

    def forget_old_codes(self) -> None:
        """Remove login links that nobody used, and logouts of sessions that have run out."""
        with contextlib.suppress(OSError):
            for path in self.layout.logins.iterdir():
                kept = SESSION_SECONDS if path.name.endswith(_ENDED) else LINK_SECONDS
                with contextlib.suppress(OSError):
                    if time.time() - path.stat().st_mtime > kept:
                        path.unlink()

    async def slow_down(self) -> None:
        """Let whoever gave a wrong token or password wait; whoever gives the right one never waits.

        Raises:
            Refused: so many are waiting already that this one is sent away.
        """
        if self._waiting >= 10:
            raise Refused(
                429, "too-many-attempts", "too many wrong tokens", advice="wait a moment and try again",
                headers={"Retry-After": "5"},
            )  # fmt: skip
        self._waiting += 1
        try:
            await asyncio.sleep(0.5 * self._waiting)
        finally:
            self._waiting -= 1
