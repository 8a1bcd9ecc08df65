"""One streaming pass: received bytes → SHA-256 of the artifact → decompress → untar → a file, its SHA-256, its Git blob id.

What is accepted: regular files, directories, symlinks that stay inside the tree, and hard links to a file that came
before (stored as that file's content). Everything else is refused with :class:`HostileArchive` (names: see
:mod:`updater.artifacts.names`). Nothing outside the given directory is touched: every name
is relative to the descriptor of that directory, files are opened exclusively, and while files are written there is no
symlink in the tree that a name could go through, since symlinks are made last. Modes become 0444 and 0555,
directories 0755; owners and times of the archive are ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from updater.artifacts import names
from updater.artifacts.decompress import Reader, ahead, decompressed
from updater.artifacts.hands import Hands
from updater.artifacts.manifest import Entry, Manifest, encode, git_tree
from updater.artifacts.tarstream import BLOCK, Member, TarStream
from updater.errors import HostileArchive

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Limits:
    """What a release may be at most. Sizes in bytes."""

    total: int = 4 * 1024**3
    entries: int = 250_000
    depth: int = 64
    path: int = 1024
    ratio: int = 250
    """Unpacked bytes per received byte, once :attr:`ratio_from` bytes are unpacked."""
    ratio_from: int = 64 * 1024**2


@dataclass(frozen=True)
class Donor:
    """An installed release whose equal files are shared by hard links, after a comparison of the bytes."""

    tree: Path
    files: Mapping[tuple[bytes, str], str]
    """(SHA-256, kind) → path."""

    @classmethod
    def of(cls, tree: Path, manifest: Manifest) -> Donor:
        return cls(
            tree, {(entry.sha256, entry.kind): entry.path for entry in manifest.entries if entry.is_file}
        )


@dataclass
class Unpacked:
    """The result: the tree, what it holds, and what it came from. ``commit``: as ``git archive`` wrote it, unproved."""

    tree: Path
    manifest: Manifest
    artifact_sha256: str
    artifact_size: int
    commit: str | None = None
    shared: int = 0
    """Files that are shared with a donor."""


def unpack(
    source: Reader,
    into: Path,
    *,
    limits: Limits | None = None,
    donors: Sequence[Donor] = (),
    on_bytes: Callable[[int], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Unpacked:
    """Unpack an artifact into the new directory ``into``.

    A single directory at the top, as GitHub and sdists have it, is stripped: ``tree`` is that directory. ``on_bytes``
    gets the bytes received so far; ``check`` is called often and may raise to cancel.

    Raises:
        HostileArchive, VerificationFailed: the archive is refused; ``into`` then holds a part of it.
        SourceFailed, OSError: reading or writing failed.
    """
    into.mkdir()
    received = _Received(source, on_bytes, check)
    umask = os.umask(0o022)
    try:
        # The writer forks, so it comes before the thread that inflates.
        with (
            _Writer(into, limits or Limits(), donors, received) as writer,
            contextlib.closing(ahead(decompressed(received.read))) as chunks,
        ):
            stream = TarStream(chunks)
            for member in stream.members():
                writer.add(member, stream)
            stream.drain(limit=1024**2)
            tree, manifest = writer.finish()
    finally:
        os.umask(umask)
    return Unpacked(tree, manifest, received.hash.hexdigest(), received.count, stream.commit, writer.shared)


class _Received:
    """Counts and hashes what comes in."""

    def __init__(
        self, source: Reader, on_bytes: Callable[[int], None] | None, check: Callable[[], None] | None
    ) -> None:
        self._source, self._on_bytes, self._check = source, on_bytes, check
        self.hash = hashlib.sha256()
        self.count = 0

    def read(self, count: int) -> bytes:
        if self._check:
            self._check()
        chunk = self._source.read(count)
        self.hash.update(chunk)
        self.count += len(chunk)
        if self._on_bytes:
            self._on_bytes(self.count)
        return chunk


@dataclass
class _Writer:
    """Writes members below one directory, and remembers what they were."""

    into: Path
    limits: Limits
    donors: Sequence[Donor]
    received: _Received
    shared: int = 0
    _names: names.Names = field(default_factory=names.Names)
    _found: dict[str, tuple[str, int, bytes, str]] = field(default_factory=dict)
    """Path → kind, size, SHA-256, link target."""
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _total: int = 0
    _members: int = 0
    _root: int = -1
    _hands: Hands = field(init=False)

    def __enter__(self) -> _Writer:
        self._root = os.open(self.into, _DIRECTORY)
        self._hands = Hands(self._root)
        return self

    def __exit__(self, *_: object) -> None:
        self._hands.abandon()
        os.close(self._root)

    def add(self, member: Member, stream: TarStream) -> None:
        path = names.clean(member.name, max_length=self.limits.path, max_depth=self.limits.depth)
        self._within_limits(member, stream.announced)
        if not path:
            if member.kind != "directory":
                raise HostileArchive("a file without a name")
            return
        if member.kind == "file":
            self._file(path, member, stream)
        elif member.kind == "directory":
            self._register(path, "D")
        elif member.kind == "symlink":
            self._register(path, "L", names.target(member.linkname, max_length=self.limits.path))
        elif member.kind == "hardlink":
            self._hardlink(path, member)
        else:
            raise HostileArchive(
                f"{names.shown(path)} is of a kind that no release holds ({_kind(member.kind)})"
            )

    def _within_limits(self, member: Member, announced: int) -> None:
        self._total += member.size
        self._members += 1  # a directory may come again, and is one entry all the same
        if self._total + announced > self.limits.total:
            raise HostileArchive(f"it unpacks to more than {self.limits.total:,} bytes")
        if self._members > self.limits.entries or len(self._found) >= self.limits.entries:
            raise HostileArchive(f"it holds more than {self.limits.entries:,} entries")
        if self._total > self.limits.ratio_from and self._total > self.limits.ratio * max(
            self.received.count, 1
        ):
            raise HostileArchive(f"it unpacks to more than {self.limits.ratio} times its size")

    def _register(self, path: str, kind: str, target: str = "") -> None:
        known = path in self._found
        self._named(path, kind)
        if kind != "D":
            self._found[path] = (kind, 0, b"", target)
        elif not known:
            self._directory(path)

    def _named(self, path: str, kind: str) -> None:
        for parent in self._names.add(path, kind):
            self._directory(parent)

    def _directory(self, path: str) -> None:
        self._hands.directory(path)
        self._found[path] = ("D", 0, b"", "")

    def _file(self, path: str, member: Member, stream: TarStream) -> None:
        kind, size = "X" if member.executable else "F", member.size
        self._named(path, kind)
        if stream.buffered(size):
            content = stream.padded(size)
            digest = hashlib.sha256(content).digest()
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            blob.update(content)
            donor = self._equal(digest, kind, size, content) if self.donors else ""
            self._hands.file(path, kind, content, donor)
        else:
            digest, blob = self._large(stream, path, kind, size)
            stream.skip(-size % BLOCK)
        self._blobs[path] = blob.digest()
        self._found[path] = (kind, size, digest, "")

    def _large(self, stream: TarStream, path: str, kind: str, size: int) -> tuple[bytes, hashlib._Hash]:
        digest, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

        def hashed() -> Iterator[memoryview]:
            for piece in stream.pieces(size):
                digest.update(piece)
                blob.update(piece)
                yield piece

        self._hands.large(path, kind, size, hashed())
        donor = self._donated(digest.digest(), kind, size)
        if donor is not None and _sha256_of(donor) == digest.digest():
            self._hands.replace(path, donor)
        return digest.digest(), blob

    def _equal(self, digest: bytes, kind: str, size: int, content: memoryview) -> str:
        """A donor's file whose bytes are equal now: an edited donor must never spread."""
        donor = self._donated(digest, kind, size)
        if donor is None:
            return ""
        with open(donor, "rb", buffering=0) as file:
            return donor if file.read(size + 1) == content else ""

    def _donated(self, digest: bytes, kind: str, size: int) -> str | None:
        wanted = 0o555 if kind == "X" else 0o444
        for donor in self.donors:
            path = donor.files.get((digest, kind))
            if path is None:
                continue
            place = os.path.join(donor.tree, path)
            with contextlib.suppress(OSError):
                found = os.lstat(place)
                if (
                    stat.S_ISREG(found.st_mode)
                    and stat.S_IMODE(found.st_mode) == wanted
                    and found.st_size == size
                ):
                    return place
        return None

    def _hardlink(self, path: str, member: Member) -> None:
        target = names.clean(member.linkname, max_length=self.limits.path, max_depth=self.limits.depth)
        kind, size, digest, _ = self._found.get(target, ("", 0, b"", ""))
        if kind not in ("F", "X"):
            raise HostileArchive(
                f"a hard link to what is no file before it: {names.shown(path)} -> {names.shown(target)}"
            )
        self._named(path, kind)
        self._hands.hardlink(path, target)
        self._blobs[path] = self._blobs[target]
        self._found[path] = (kind, size, digest, "")
        self._total += size

    def finish(self) -> tuple[Path, Manifest]:
        """Check what can only be known at the end, make the symlinks, and hand over the tree."""
        self.shared = self._hands.finish()
        self._names = names.Names()  # not needed any more, and large
        top = self._top()
        cut = len(top) + 1 if top else 0
        self._found.pop(top, None)
        if not self._blobs:
            raise HostileArchive("it holds no files")
        tree_id = git_tree(
            (path[cut:], kind, target, self._blobs.get(path))
            for path, (kind, _, _, target) in self._found.items()
        )
        self._blobs.clear()
        entries = []
        while self._found:
            path, it = self._found.popitem()
            entries.append(Entry(path[cut:] if cut else path, *it))
        for entry in entries:
            if names.folded(entry.path.partition("/")[0]) in names.RESERVED:
                raise HostileArchive(f"a name that belongs to updater: {names.shown(entry.path)}")
        links = {entry.path: entry.target for entry in entries if entry.kind == "L"}
        names.check_links(links)
        for path, target in links.items():
            os.symlink(encode(target), encode(f"{top}/{path}" if top else path), dir_fd=self._root)
        return self.into / top, Manifest.of(entries, tree_id)

    def _top(self) -> str:
        """The one directory at the top, if everything is in it."""
        tops = [path for path in self._found if "/" not in path]
        return tops[0] if len(tops) == 1 and self._found[tops[0]][0] == "D" else ""


def _kind(kind: str) -> str:
    flags = {"3": "a character device", "4": "a block device", "6": "a FIFO", "S": "a sparse file"}
    flag = kind.removeprefix("other:")
    return flags.get(flag, f"type {flag!a}")


def _sha256_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
