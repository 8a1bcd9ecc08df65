"""A download that survives: dropped connections and stalls are taken up again where they broke off.

Only bytes of one and the same entity are put together: each new request carries the validator of the first (``If-Range``,
RFC 9110 section 13.1.5), and an answer for another entity is :class:`ContentChanged`.
"""

from __future__ import annotations

import random
import time
from types import TracebackType
from typing import TYPE_CHECKING

from updater.errors import ContentChanged, Interrupted, SourceFailed, TooLarge

if TYPE_CHECKING:
    from updater.sources import Artifact, Download, Source

ATTEMPTS = 6
"""Tries without a single new byte after which a download is given up; the backoff between them sums to some 15 s."""


class Resuming:
    """Reads an artifact to its end, whatever the network does in between."""

    def __init__(
        self,
        source: Source,
        artifact: Artifact,
        *,
        offset: int,
        validator: str | None,
        total: int | None,
        max_size: int,
    ) -> None:
        self._source, self._artifact, self._max_size = source, artifact, max_size
        self._at = offset
        self._failures = 0
        self.validator = validator
        self.total: int | None = total if total is not None else artifact.size
        self._download: Download | None = None
        if not self._whole:
            self._connect()

    def __enter__(self) -> Resuming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; ``b""`` at the end.

        Raises:
            SourceFailed: it cannot be had; ContentChanged: it is another file now; TooLarge: it is more than allowed.
        """
        while True:
            try:
                if self._download is None:
                    if self._whole:
                        return b""
                    self._connect()
                assert self._download is not None
                chunk = self._download.read(count)
                if not chunk and self.total is not None and self._at < self.total:
                    raise Interrupted(f"the connection ended after {self._at:,} of {self.total:,} bytes")
            except Interrupted as failure:
                self._wait_or_give_up(failure)
                continue
            self._count(chunk)
            return chunk

    @property
    def _whole(self) -> bool:
        """All of it is here. There is nothing to ask for then: a range behind the end is an error (RFC 9110, 15.5.17)."""
        return 0 < self._at == self.total and self._at <= self._max_size

    def _count(self, chunk: bytes) -> None:
        self._at += len(chunk)
        if chunk:
            self._failures = 0
        if self._at > self._max_size or (self.total is not None and self._at > self.total):
            what = "the configuration allows" if self._at > self._max_size else "it was said to have"
            raise TooLarge(
                f"{self._artifact.name} is larger than {what} ({min(self._max_size, self.total or self._max_size):,} bytes)",
                advice="if it is meant to be so large, raise [source] max_size in updater.toml.",
            )

    def _connect(self) -> None:
        """Open at the place where we are; retried inside, so that a first connection may fail as well."""
        while self._download is None:
            try:
                self._take_up(self._source.open(self._artifact, offset=self._at, validator=self.validator))
            except Interrupted as failure:
                self._wait_or_give_up(failure)
        if self.total is not None and self.total > self._max_size:
            self._disconnect()
            raise TooLarge(
                f"{self._artifact.name} has {self.total:,} bytes, more than the {self._max_size:,} that are allowed",
                advice="if it is meant to be so large, raise [source] max_size in updater.toml.",
            )

    def _take_up(self, download: Download) -> None:
        if download.offset != self._at or (
            self.validator and download.validator not in (None, self.validator)
        ):
            same = self.validator is not None and download.validator == self.validator
            if not same or download.offset > self._at:
                download.close()
                raise ContentChanged(
                    f"{self._artifact.name} changed, or the server cannot send a part of it",
                    advice="run the command again: it starts from the beginning.",
                )
            try:
                self._skip(download, self._at - download.offset)
            except BaseException:
                download.close()
                raise
        self._download = download
        self.validator = download.validator or self.validator
        self.total = download.total if download.total is not None else self.total

    @staticmethod
    def _skip(download: Download, count: int) -> None:
        """A server that ignores Range sends the same entity from its beginning: read over what is here."""
        while count > 0:
            chunk = download.read(min(count, 256 * 1024))
            if not chunk:
                raise Interrupted("the connection ended while it was taken up again")
            count -= len(chunk)

    def _wait_or_give_up(self, failure: Interrupted) -> None:
        self._disconnect()
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise SourceFailed(
                f"{self._artifact.name} could not be fetched: {failure.message}",
                details=[f"{ATTEMPTS} tries, {self._at:,} bytes are here and kept for the next run"],
                advice="look at the network and run the command again: it goes on where it was.",
            ) from failure
        time.sleep(min(8.0, 0.25 * 2**self._failures) * random.uniform(0.5, 1.0))

    def _disconnect(self) -> None:
        if self._download is not None:
            self._download.close()
            self._download = None


def resuming(
    source: Source,
    artifact: Artifact,
    *,
    offset: int = 0,
    validator: str | None = None,
    total: int | None = None,
    max_size: int,
) -> Resuming:
    """Open an artifact for reading to its end. ``offset``, ``validator`` and ``total`` (bytes of the whole, if known): what
    is here of it already.

    Raises:
        ContentChanged: what is here belongs to another file.
        SourceFailed, TooLarge.
    """
    return Resuming(source, artifact, offset=offset, validator=validator, total=total, max_size=max_size)
