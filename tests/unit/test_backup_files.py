"""The files of a backup: written in frames and past the cache, and read back while they grow."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from updater.backups import index
from updater.backups.archive import Archive
from updater.backups.frames import FRAME, Frames
from updater.backups.gather import Found
from updater.backups.parts import entry
from updater.backups.readback import ReadBack
from updater.backups.uncached import PAGE, WINDOW, Reader, Writer
from updater.errors import BackupDamaged

SIZES = (0, 1, PAGE - 1, PAGE, 3 * PAGE + 17, WINDOW, 2 * WINDOW + PAGE + 1)


def written(path: Path, content: bytes) -> Path:
    with Writer(path) as file:
        for at in range(0, len(content), 700_001):
            file.write(content[at : at + 700_001])
        file.finish()
    assert path.read_bytes() == content
    return path


def read_whole(path: Path) -> bytes:
    pieces: list[bytes] = []
    with Reader(path) as file:
        file.drop()
        while piece := file.read(sum(map(len, pieces)), WINDOW):
            pieces.append(bytes(piece))
    return b"".join(pieces)


@pytest.mark.parametrize("size", SIZES)
def test_files_of_any_size_go_past_the_cache_and_come_back(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    place = written(tmp_path / "file", content)
    assert read_whole(place) == content
    with Reader(place) as file:
        for at, count in ((0, 1), (size // 2, PAGE + 3), (size - 1, 1), (size, 10), (size + 2 * PAGE, 10)):
            assert at < 0 or file.read(at, count) == content[at : at + count]


@pytest.mark.parametrize("refused", ["preadv", "write"])
def test_a_filesystem_that_refuses_a_direct_read_or_write_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """As those do whose sectors are larger than a page."""
    system: Callable[..., int] = getattr(os, refused)
    calls = 0

    def once(*words: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        return system(*words)

    content = os.urandom(WINDOW + 5 * PAGE + 7)
    with monkeypatch.context() as patch:
        patch.setattr(os, refused, once)
        assert read_whole(written(tmp_path / "file", content)) == content
    assert calls > 1


def test_frames_are_one_stream_in_order() -> None:
    chance = random.Random(4)
    frames: list[bytes] = []
    content = bytearray()
    writer = Frames(frames.append, threads=3)
    for number in range(40):
        piece = chance.randbytes(chance.randrange(FRAME // 4)) + bytes(200_000)
        if number % 2:
            writer.write(piece)
        else:
            writer.room(len(piece))[: len(piece)] = piece
            writer.filled(len(piece))
        content += piece
    writer.finish()
    writer.close()
    assert len(frames) > 5 and all(zstandard.frame_content_size(it) <= FRAME for it in frames)
    assert b"".join(map(zstandard.decompress, frames)) == content


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 4]) + raw[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "cut": lambda raw: raw[:-5],
    "longer": lambda raw: raw + b"\0",
    "gone": lambda _: b"",
    "a frame that says it is huge": lambda raw: raw[:4] + b"\xe0" + b"\xff" * 6 + bytes(2) + raw[13:],
}


@pytest.mark.parametrize("damage", ["", *DAMAGES])
def test_an_archive_is_read_back_as_it_lies_on_the_disk(tmp_path: Path, damage: str) -> None:
    content = random.Random(5).randbytes(5 * FRAME + 100)
    source = tmp_path / "source"
    source.write_bytes(content)
    found = Found.of("data/source", source, source.stat())
    place = tmp_path / "archive"
    with Archive(place, threads=2, summed=False) as out:
        stored = entry(found, digest=out.file(found).digest)
    raw = place.read_bytes()
    if damage:
        place.write_bytes(DAMAGES[damage](raw))
    back = ReadBack(place, out.grown, check=lambda: None)
    if damage:
        with pytest.raises(BackupDamaged):
            back.confirm([stored])
    else:
        assert back.confirm([stored]) == hashlib.sha256(raw).hexdigest()
        other = entry(found, digest=hashlib.sha256(index.block_sums(memoryview(b"other"))).hexdigest())
        with pytest.raises(BackupDamaged):
            back.confirm([other])
