"""The hands of the unpacker: a process that makes directories and files while its parent inflates, parses and hashes.

Creating a file is mostly waiting for the kernel, and two threads of one Python would wait for each other; a forked child on
the other core makes the whole pass as fast as ``tar xzf`` alone. It is told what to do through a pipe: a header of fixed
size, the path, the content. The end of the pipe is its end: a killed parent leaves no child.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import struct
from collections.abc import Iterable
from typing import IO, Any, NoReturn

from updater.artifacts.manifest import encode

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MODES = {b"F": 0o444, b"X": 0o555}

_HEADER = struct.Struct(">cHHQ")
"""What to do, the length of the path, the length of another path, the length of the content.

``D`` make a directory; ``F``, ``X`` write a file, or share the other path's where that can be linked; ``R`` replace a file that was
written by a link to the other path; ``H`` link the other path, which is in the tree as well.
"""
_BATCH = 192 * 1024
_PIPE = 1024**2
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, Linux (man 2 fcntl)


class Hands:
    """Writes below one directory. Errors of the writing come up at the latest in :meth:`finish`, as OSError."""

    def __init__(self, root: int) -> None:
        reader, writer = os.pipe()
        answer, tell = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, _SET_PIPE_SIZE, _PIPE)
        self._child = os.fork()
        if self._child == 0:
            os.close(writer)
            os.close(answer)
            _work(root, reader, tell)
        os.close(reader)
        os.close(tell)
        self._pipe, self._answer = writer, answer
        self._waiting: list[bytes | memoryview] = []
        self._size = 0

    def directory(self, path: str) -> None:
        self._tell(b"D", path)

    def file(self, path: str, kind: str, content: memoryview, donor: str = "") -> None:
        """Write a whole file; where ``donor`` is given and can be linked, link it instead: the caller has compared them."""
        self._tell(kind.encode(), path, donor, bytes(content))

    def large(self, path: str, kind: str, size: int, pieces: Iterable[memoryview]) -> None:
        """Write a file piece by piece; the pieces must come to ``size`` bytes."""
        raw = encode(path)
        self._add(_HEADER.pack(kind.encode(), len(raw), 0, size) + raw)
        for piece in pieces:
            self._add(bytes(piece))

    def replace(self, path: str, donor: str) -> None:
        """Share a donor's file in place of an equal one that was written."""
        self._tell(b"R", path, donor)

    def hardlink(self, path: str, target: str) -> None:
        self._tell(b"H", path, target)

    def _tell(self, what: bytes, path: str, other: str = "", content: bytes = b"") -> None:
        raw, second = encode(path), encode(other)
        self._add(_HEADER.pack(what, len(raw), len(second), len(content)) + raw + second + content)

    def _add(self, part: bytes) -> None:
        self._waiting.append(part)
        self._size += len(part)
        if self._size >= _BATCH:
            try:
                self._flush()
            except BrokenPipeError:
                self.finish()  # raises what broke it

    def _flush(self) -> None:
        view = memoryview(b"".join(self._waiting))
        self._waiting, self._size = [], 0
        while view:
            view = view[os.write(self._pipe, view) :]

    def finish(self) -> int:
        """Wait until everything is written. Returns how many files are shared.

        Raises:
            OSError: something could not be written.
        """
        if self._child == 0:
            return 0
        failure: OSError | None = None
        try:
            self._flush()
        except BrokenPipeError as broken:
            failure = broken
        finally:
            said = self._end()
        if "errno" in said:
            raise OSError(said["errno"], os.strerror(said["errno"]), said["path"])
        if failure or "shared" not in said:
            raise OSError(errno.EIO, "the process that writes the files died")
        return int(said["shared"])

    def _end(self) -> dict[str, Any]:
        os.close(self._pipe)
        with open(self._answer, "rb") as file:
            said = file.read()
        os.waitpid(self._child, 0)
        self._child = 0
        return dict(json.loads(said)) if said else {}

    def abandon(self) -> None:
        """Stop writing at once: what is there will be thrown away."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            self._end()


def _work(root: int, reader: int, tell: int) -> NoReturn:
    """The child. It never returns into its parent's code."""
    path = b""
    shared = 0
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(reader, "rb", buffering=_PIPE) as pipe:
            while header := pipe.read(_HEADER.size):
                what, first, second, size = _HEADER.unpack(header)
                path, other = pipe.read(first), pipe.read(second)
                shared += _act(root, what, path, other, size, pipe)
        os.write(tell, json.dumps({"shared": shared}).encode())
    except OSError as failure:
        os.write(tell, json.dumps({"errno": failure.errno or errno.EIO, "path": os.fsdecode(path)}).encode())
    finally:
        os._exit(0)


def _act(root: int, what: bytes, path: bytes, other: bytes, size: int, pipe: IO[bytes]) -> int:
    if what == b"D":
        os.mkdir(path, 0o755, dir_fd=root)
    elif what == b"H":
        os.link(other, path, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
    elif what == b"R":
        return _link(other, path + b".shared", root) and _rename(path + b".shared", path, root)
    elif other and _link(other, path, root):
        pipe.read(size)
        return 1
    else:
        _write(root, path, MODES[what], size, pipe)
    return 0


def _write(root: int, path: bytes, mode: int, size: int, pipe: IO[bytes]) -> None:
    fd = os.open(path, CREATE, mode, dir_fd=root)
    try:
        while size:
            piece = memoryview(pipe.read(min(size, _PIPE)))
            if not piece:
                raise OSError(errno.EIO, "the pipe ended")
            size -= len(piece)
            while piece:
                piece = piece[os.write(fd, piece) :]
    finally:
        os.close(fd)


def _link(donor: bytes, path: bytes, root: int) -> int:
    try:
        os.link(donor, path, dst_dir_fd=root, follow_symlinks=False)
        return 1
    except OSError:  # another filesystem, too many links, or a filesystem without them
        return 0


def _rename(source: bytes, target: bytes, root: int) -> int:
    os.rename(source, target, src_dir_fd=root, dst_dir_fd=root)
    return 1
