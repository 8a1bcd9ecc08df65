"""The watch sees every call that changes the filesystem: strace looks on at the same time, and both must see the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import calls
from tests.crash.world import World


def _missing() -> str | None:
    if (why := calls.missing()) is not None:
        return why
    if shutil.which("strace") is None:
        return "there is no strace"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True)
    return None if tried.returncode == 0 else "strace may not trace here"


pytestmark = pytest.mark.skipif(_missing() is not None, reason=f"nothing to compare with: {_missing()}")

TRAPPED = """
import sys
from tests.crash import calls
calls.trap(sys.argv.pop(1))
"""

SMALL = """
import contextlib, os, shutil, sqlite3
os.mkdir("made"); os.symlink("made", "link"); os.replace("link", "other"); os.chmod("made", 0o700)
with open("made/file", "wb") as file:
    file.write(b"x" * 10)
    file.flush()
    os.fsync(file.fileno())
    os.ftruncate(file.fileno(), 5)
    os.fchmod(file.fileno(), 0o600)
    os.pwrite(file.fileno(), b"y", 2)
    os.writev(file.fileno(), [b"a", b"b"])
    os.posix_fallocate(file.fileno(), 0, 100)
os.utime("made/file", (1, 1)); os.link("made/file", "made/again"); os.truncate("made/again", 3)
with contextlib.suppress(OSError):  # not on every filesystem; it is called all the same
    os.setxattr("made/file", "user.x", b"1")
with contextlib.suppress(OSError):
    os.setxattr("made/file", "user.x", b"2", follow_symlinks=False)
with contextlib.suppress(OSError):
    os.removexattr("made/file", "user.x")
at = os.open("made", os.O_RDONLY)
os.mkdir("below", dir_fd=at); os.rename("below", "under", src_dir_fd=at, dst_dir_fd=at); os.rmdir("under", dir_fd=at)
os.chmod("file", 0o644, dir_fd=at); os.unlink("again", dir_fd=at)
shutil.copyfile("made/file", "made/copy")
connection = sqlite3.connect("made/data.db")
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE it (x)")
connection.commit()
connection.close()
if os.fork() == 0:
    open("made/of-a-child", "w").close()
    os._exit(0)
os.wait()
open("made/file").close()
shutil.rmtree("made")
"""

COMMAND = """
from updater import cli
sys.argv[0] = "updater"
cli.main()
"""

CHANGES = re.compile(
    r"^(write|pwrite|writev|pwritev|truncate|ftruncate|fallocate|rename|link|symlink|unlink|rmdir|mkdir|mknod|creat|l?chown|fchown|"
    r"f?chmod|utime|futimes|f?l?setxattr|f?l?removexattr|fsync|fdatasync|sync|msync|sendfile|copy_file_range|splice|tee|vmsplice|"
    r"io_uring|io_submit|openat2|open_by_handle_at|mount|umount|fs(open|config|mount|pick)|move_mount|quotactl|swapon|file_setattr)"
)
"""What strace has to say of calls that change something, by how their names begin; more than the watch knows of. A file that is mapped to be
written to is one as well, but for SQLite's ``-shm``, of which a crash leaves nothing that counts."""
LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
IOCTLS = re.compile(r"FICLONE|FS_IOC_(SET|FSSET)|BTRFS|XFS|EXT4")


def _traced(
    tmp_path: Path, root: Path, code: str, *words: str, env: dict[str, str] | None = None
) -> tuple[Counter[str], Counter[str]]:
    """What the watch has seen of a program below the root, and what strace has, by the name of the call."""
    said = tmp_path / "strace"
    listening = calls.Listening(tmp_path / "listener")
    top = str(Path(__file__).resolve().parents[2])
    running = subprocess.Popen(
        ["strace", "-D", "-f", "-y", "-s", "0", "-o", str(said), sys.executable, "-c", TRAPPED + code, str(listening.place), *words],
        cwd=root, env={**(env or os.environ), "PYTHONPATH": top}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    watch = calls.Watch(listening.accept(), root, running.pid, keep=True)
    status = running.wait(60)
    assert running.stdout is not None
    assert status == 0, os.read(running.stdout.fileno(), 65536)
    running.stdout.close()
    assert watch.failure is None
    return Counter(it.name for it in watch.seen), Counter(_of_strace(said, root))


def _of_strace(said: Path, root: Path) -> Iterator[str]:
    """Each call that changes something below the root, of this program and its forks as long as they run no other one. strace
    writes paths as they were given, and with -y what a descriptor is, also of the present directory."""
    trapped, others = False, set()
    for line in said.read_text(errors="replace").splitlines():
        if not (found := LINE.match(line)):
            continue
        process, name, rest = found[1], found[2], found[3]
        if trapped and name == "execve" and not rest.endswith(")"):
            others.add(process)
        trapped = trapped or name == "seccomp"
        if not trapped or process in others:
            continue
        if name in ("open", "openat"):
            changes = re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", rest) is not None
        elif name == "ioctl":
            changes = IOCTLS.search(rest) is not None
        elif name == "mmap":
            changes = "MAP_SHARED" in rest and "PROT_WRITE" in rest and "-shm>" not in rest
        else:
            changes = CHANGES.match(name) is not None
        if changes and (str(root) in rest or re.search(r'(^|, )"[^/"]', rest)):
            yield name


def test_a_small_program(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    seen, told = _traced(tmp_path, root, SMALL)
    assert told - seen == Counter() == seen - told
    assert len(seen) > 20


def test_a_backup(tmp_path: Path) -> None:
    with World(tmp_path / "world", tmp_path / "world" / "disk") as world:
        world.publish("v1.0.0")
        world.make_databases()
        world.must_work("deploy", "v1.0.0")
        seen, told = _traced(tmp_path, world.site.root, COMMAND, "backup", "create", env=world.site.env())
    assert told - seen == Counter() == seen - told
    assert {"pwrite64", "rename", "fsync", "openat", "unlink"} <= set(seen)
