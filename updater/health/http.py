"""The probe that asks over HTTP. It reads no more than it needs: an endpoint may send events for ever."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from updater.config import ProbeConfig
from updater.health.asking import Answer, Check, Told, why, within

BODY = 2000
"""Bytes of an answer's body that are looked at; more is not health."""

WHOLE = 1024**2
"""Bytes of an answer that is wanted whole, at most."""


def get(probe: ProbeConfig, check: Check | None) -> Answer:
    """Ask once; the answer is decided as soon as the status, and ``contains``, are."""
    silent = Answer(False, f"GET {shown(probe.url)}: {why(TimeoutError(), probe)}")
    return within(probe.timeout, lambda told: _ask(probe, told), silent, check)


def fetch(url: str, timeout: float, check: Check | None) -> tuple[int, str]:
    """Status and body of one GET, of that :data:`WHOLE` bytes at most; ``timeout`` in seconds, in all.

    Raises:
        OSError, http.client.HTTPException: no answer, or none that is HTTP.
        ValueError: the address has a letter that no request can carry.
    """
    probe = ProbeConfig("http", url=url, timeout=timeout)
    found: list[tuple[int, str]] = []

    def act(told: Told) -> Answer:
        parts = urlsplit(url)
        connection = _connection(probe)
        try:
            connection.connect()
            ours: socket.socket = connection.sock
            told.abort = lambda: ours.shutdown(socket.SHUT_RDWR)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"User-Agent": "updater", "Connection": "close"})
            answer = connection.getresponse()
            found.append((answer.status, answer.read(WHOLE).decode("utf-8", "replace")))
            return Answer(True, "")
        finally:
            connection.close()

    if not within(timeout, act, Answer(False, ""), check).ok or not found:
        raise TimeoutError(f"no answer within {timeout:g} s")
    return found[0]


def shown(url: str) -> str:
    """An address for people and logs, without a password or a token in it."""
    if "@" not in url and "?" not in url:
        return url
    from updater import redaction

    return redaction.Redactor().text(url)


def _ask(probe: ProbeConfig, told: Told) -> Answer:
    parts = urlsplit(probe.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _connection(probe)
    try:
        connection.connect()
        ours: socket.socket = connection.sock
        told.abort = lambda: ours.shutdown(socket.SHUT_RDWR)
        connection.request(
            "GET", path, headers={"User-Agent": "updater", "Accept": "*/*", "Connection": "close"}
        )
        answer = connection.getresponse()
        return _judge(probe, answer, told)
    except (OSError, http.client.HTTPException) as failure:
        return told.answer or Answer(False, f"GET {shown(probe.url)}: {why(failure, probe)}")
    finally:
        connection.close()


def _connection(probe: ProbeConfig) -> http.client.HTTPConnection:
    parts = urlsplit(probe.url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, parts.port, timeout=probe.timeout)
    # A probe asks whether it answers; its certificate is often its own and proves nothing here.
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection(host, parts.port, timeout=probe.timeout, context=context)


def _judge(probe: ProbeConfig, answer: http.client.HTTPResponse, told: Told) -> Answer:
    summary = f"GET {shown(probe.url)} answered {answer.status}"
    if not (answer.status == probe.status if probe.status else 200 <= answer.status < 300):
        wanted = f" instead of {probe.status}" if probe.status else ""
        return _read(answer, told, summary + wanted, "")
    if not probe.contains:
        return Answer(True, summary)
    found = _read(answer, told, f"{summary} without {probe.contains!r}", probe.contains)
    return Answer(True, summary) if found.ok else found


def _read(answer: http.client.HTTPResponse, told: Told, summary: str, wanted: str) -> Answer:
    """Read until ``wanted`` is there, at most BODY bytes; what was read is the evidence."""
    body = b""
    while True:
        text = body.decode("utf-8", "replace")
        if wanted and wanted in text:
            return Answer(True, summary)
        told.answer = Answer(False, summary, _excerpt(text))
        chunk = answer.read1(BODY - len(body)) if len(body) < BODY else b""
        if not chunk:
            return told.answer
        body += chunk


def _excerpt(body: str) -> tuple[str, ...]:
    text = " ".join(body.split())
    return (f"body: {text[:300]}",) if text else ()
