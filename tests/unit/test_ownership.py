"""Whose a record is: devices may be numbered anew with each boot, and a root may be moved or copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from updater import ownership
from updater.layout import Layout
from updater.subprocesses import boot_id

NOW, BEFORE = boot_id(), "another boot"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def mark(layout: Layout, *, device: int = 0, inode: int = 0) -> str:
    """The root's mark, with other numbers."""
    seen = layout.root.stat()
    return f"{seen.st_dev + device}:{seen.st_ino + inode}"


def test_a_record_belongs_to_the_root_that_it_was_written_in(layout: Layout) -> None:
    assert ownership.mark(layout) == mark(layout)
    assert ownership.is_ours(layout, {"root": mark(layout), "boot": NOW})
    assert ownership.is_ours(layout, {"root": mark(layout), "boot": BEFORE})


def test_a_copy_has_another_inode_or_another_device(layout: Layout) -> None:
    assert not ownership.is_ours(layout, {"root": mark(layout, inode=1), "boot": NOW})
    assert not ownership.is_ours(layout, {"root": mark(layout, inode=1), "boot": BEFORE})
    assert not ownership.is_ours(layout, {"root": mark(layout, device=1), "boot": NOW})


def test_a_device_may_have_another_number_after_a_boot(layout: Layout) -> None:
    assert ownership.is_ours(layout, {"root": mark(layout, device=1), "boot": BEFORE})


@pytest.mark.parametrize("boot", [{}, {"boot": NOW}, {"boot": BEFORE}])
def test_a_journal_is_told_by_its_path_where_the_device_is_another(
    layout: Layout, boot: dict[str, str]
) -> None:
    """A snapshot that is mounted elsewhere, also after a boot, must not start the application a second time."""
    told = {**ownership.lasting(layout), "root": mark(layout, device=1), **boot}
    assert ownership.is_ours(layout, told)
    assert not ownership.is_ours(layout, {**told, "place": "/srv/original"})
    moved = {**ownership.lasting(layout), "place": "/srv/before/it/was/moved", **boot}
    assert ownership.is_ours(layout, moved)


def test_records_of_older_versions_are_believed(layout: Layout) -> None:
    inode = layout.root.stat().st_ino
    assert ownership.is_ours(layout, {})
    assert ownership.is_ours(layout, {"root": str(inode), "boot": NOW})
    assert not ownership.is_ours(layout, {"root": str(inode + 1), "boot": NOW})
