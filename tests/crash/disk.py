"""Filesystems in a file, and a power cut: what was not flushed is gone, with the kernel's own journal and its replay.

The cut is the filesystem's shutdown (ioctl_xfs_goingdown(2); ext4 and XFS know it). ``lost``: everything unflushed is lost;
``kept``: the log of the metadata is flushed first, the data are not, so names may stand without what they name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

_GOING_DOWN = 0x8004587D  # _IOR('X', 125, __u32)
MODELS = {"kept": 1, "lost": 2}
SIZES = {"ext4": 640, "xfs": 640}
"""MB, of which little is ever written: updater wants several hundred to be free."""
FILESYSTEMS = tuple(SIZES)


def missing() -> str | None:
    """Why no power can be cut here; None: it can."""
    if not sys.platform.startswith("linux"):
        return "filesystems are shut down on Linux only"
    if os.getuid() != 0:
        return "it needs root, to mount filesystems"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    lacking = [it for it in ("mkfs.ext4", "mkfs.xfs", "mount", "umount") if _tool(it) is None]
    return f"{', '.join(lacking)}: not installed (e2fsprogs, xfsprogs)" if lacking else None


def _tool(name: str) -> str | None:
    """Not everybody has the administrator's directories on the PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Disk:
    """A filesystem of its own at ``place``, in a file ``image``."""

    def __init__(self, kind: str, image: Path, place: Path) -> None:
        self.kind, self.image, self.place = kind, image, place
        place.mkdir(parents=True, exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(SIZES[kind] * 1024**2)
        options = (
            ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"] if kind == "ext4" else ["-q"]
        )
        subprocess.run(
            [str(_tool(f"mkfs.{kind}")), *options, str(image)], check=True, stdout=subprocess.DEVNULL
        )
        self._fd: int | None = None
        self.mount()

    def mount(self) -> None:
        subprocess.run(["mount", "-o", "loop,noatime", self.image, self.place], check=True)
        self._fd = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)

    def cut(self, model: str) -> None:
        """The power goes: from here on nothing reaches the disk, and every call on it fails."""
        assert self._fd is not None
        fcntl.ioctl(self._fd, _GOING_DOWN, struct.pack("I", MODELS[model]))

    def again(self) -> None:
        """The power is back: mounted anew, the journal replayed. Nothing may have it open any more."""
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", self.place], check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.place} cannot be unmounted")
            time.sleep(0.01)

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.unmount()
        self.image.unlink(missing_ok=True)
