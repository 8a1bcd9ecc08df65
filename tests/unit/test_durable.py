"""The ground: what durable has returned from is there, whole; what it refuses is left alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from updater import durable


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """F12."""
    path = tmp_path / "state"
    durable.write(path, "old and long")
    durable.write(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    with pytest.raises(OSError):
        durable.write(path, "new")
    assert os.listdir(tmp_path) == ["state"]


def test_a_swap_never_touches_what_is_not_a_symlink(tmp_path: Path) -> None:
    """F23, F24: a real directory or file at `current` is neither linked into nor removed."""
    directory, file = tmp_path / "current", tmp_path / "file"
    directory.mkdir()
    (directory / "precious").write_text("data")
    file.write_text("data")
    for place in (directory, file):
        with pytest.raises(FileExistsError):
            durable.swap_symlink(place, "releases/v2")
        with pytest.raises(FileExistsError):
            durable.remove_symlink(place)
    assert (directory / "precious").read_text() == "data"
    assert os.listdir(directory) == ["precious"]


def test_a_leftover_of_a_killed_swap_is_not_published_by_the_next(tmp_path: Path) -> None:
    """F21: temporary names are unique, so a leftover link is never the one that is renamed."""
    leftover = tmp_path / durable.temporary_name("current")
    leftover.symlink_to("releases/old")
    durable.swap_symlink(tmp_path / "current", "releases/new")
    assert os.readlink(tmp_path / "current") == "releases/new"
    assert durable.sweep(tmp_path) == [leftover.name]
    assert os.listdir(tmp_path) == ["current"]


def test_readers_beside_swaps_always_see_one_of_the_two(tmp_path: Path) -> None:
    """F14, F22, F45: the swap is atomic, and what was there is renamed over, never removed first. (`bench/swap.py` does this 100,000 times.)"""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "VERSION").write_text(name)
    link = tmp_path / "current"
    durable.swap_symlink(link, "a")
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((link / "VERSION").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(500):
        durable.swap_symlink(link, "ab"[turn % 2])
    stop.set()
    reader.join()
    assert seen <= {"a", "b"}


def test_a_removed_tree_goes_even_if_its_directories_are_read_only(tmp_path: Path) -> None:
    tree = tmp_path / "release"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "file").write_text("x")
    (tree / "inner").chmod(0o555)
    tree.chmod(0o555)
    durable.remove_tree(tree)
    assert os.listdir(tmp_path) == []


def test_removing_a_tree_never_follows_a_symlink(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("data")
    tree = tmp_path / "release"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    durable.remove_tree(tree)
    link = tmp_path / "link"
    link.symlink_to(outside)
    durable.remove_tree(link)
    assert (outside / "precious").read_text() == "data"


def test_flushing_a_tree_raises_where_it_cannot(tmp_path: Path) -> None:
    """F37: a seal over what is not on the disk would be a promise that a power cut breaks."""
    durable.flush_tree(tmp_path)
    with pytest.raises(OSError):
        durable.flush_tree(tmp_path / "missing")


@given(content=st.binary(max_size=4096))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("write") / "file"
    durable.write(path, content)
    assert path.read_bytes() == content


def test_what_is_no_record_is_refused_and_holds_no_descriptor(tmp_path: Path) -> None:
    """A dashboard looks for ever, also at what turns out to be a directory."""
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    before = os.dup(0)
    os.close(before)
    for name in ("directory", "pipe", "large"):
        with pytest.raises(OSError):
            durable.read(tmp_path / name, 10)
    after = os.dup(0)
    os.close(after)
    assert after == before, "the lowest free number is the same"
