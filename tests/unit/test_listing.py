"""The listing of an environment: every change shows, whichever process saw it, and a clone is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from updater.environments import listing as module
from updater.environments.listing import WIDE, listing


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """More directories than one process takes."""
    for number in range(2 * WIDE):
        place = tmp_path / "env" / "lib" / f"package{number:02}" / "inner"
        place.mkdir(parents=True)
        (place / "code.py").write_text(f"x = {number}\n")
    (tmp_path / "env" / "lib" / "link").symlink_to("package00")
    (tmp_path / "env" / "pyvenv.cfg").write_text("home = here\n")
    return tmp_path / "env"


@pytest.mark.parametrize("place", ["lib/package00", "lib/package01", "lib/package31/inner", "."])
def test_every_change_shows_whichever_process_sees_it(environment: Path, place: str) -> None:
    before = listing(environment)
    added = environment / place / "more.py"
    added.write_text("")
    assert listing(environment) != before
    added.unlink()
    assert listing(environment) == before
    (environment / place / "folder").mkdir()
    assert listing(environment) != before


def test_one_process_and_two_find_the_same(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = listing(environment)
    monkeypatch.setattr(module, "WIDE", 10**6)
    assert listing(environment) == two


def test_a_clone_is_the_same_files_and_has_the_same_listing(environment: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    assert listing(environment, link_to=clone) == listing(clone)
    mine, theirs = (
        {
            str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.stat().st_ino
            for path in root.rglob("*")
            if path.is_symlink() or path.is_file()
        }
        for root in (clone, environment)
    )
    assert mine == theirs and len(mine) == 2 * WIDE + 2


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second filesystem to fail on")
def test_a_clone_that_cannot_be_linked_fails_as_a_whole(environment: Path) -> None:
    """Hard links do not reach another filesystem: only files in every second directory, so that the child meets it."""
    import tempfile

    for number in range(0, 2 * WIDE, 2):
        (environment / "lib" / f"package{number:02}" / "inner" / "code.py").unlink()
    (environment / "pyvenv.cfg").unlink()
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere,
        pytest.raises(OSError, match="cross-device"),
    ):
        listing(environment, link_to=Path(elsewhere) / "clone")


FORKS = """
import sys, threading
from pathlib import Path
from updater.environments.listing import listing
forks = []
sys.addaudithook(lambda event, _: forks.append(event) if event == "os.fork" else None)
alone = listing(Path(sys.argv[1]))
done = threading.Event()
other = threading.Thread(target=done.wait)
other.start()
beside = listing(Path(sys.argv[1]))
done.set()
print(len(forks), alone == beside)
"""


def test_nothing_is_forked_beside_other_threads(environment: Path) -> None:
    """In the child a lock that another thread holds would never be given back."""
    done = subprocess.run([sys.executable, "-c", FORKS, environment], capture_output=True, text=True)
    assert done.stdout == "1 True\n", done.stdout + done.stderr
