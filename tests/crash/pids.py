"""Starts a program under a process number of one's choice, as a machine does that was started anew, or has run for long."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Sequence

CLONE3 = 435
"""The number of the call, the same on every processor that Linux runs on."""


def start_as(pid: int, words: Sequence[str]) -> bool:
    """Start a program as a child of this process with that number. Returns whether it could be had: False where a process, or a
    group or session of processes, still goes by it.

    Linux 5.5 and up, for root (clone3(2), ``set_tid``).

    Raises:
        OSError: for any other reason.
    """
    assert platform.system() == "Linux"
    program = words[0] if "/" in words[0] else f"/bin/{words[0]}"
    number = (ctypes.c_int32 * 1)(pid)
    fields = [0] * 11
    fields[4], fields[8], fields[9] = signal.SIGCHLD, ctypes.addressof(number), 1
    about = ctypes.create_string_buffer(struct.pack("<11Q", *fields))
    libc = ctypes.PyDLL(
        None, use_errno=True
    )  # it holds the interpreter's lock: the child's copy of it is free for the child
    libc.syscall.restype = ctypes.c_long
    found = libc.syscall(ctypes.c_long(CLONE3), about, ctypes.c_size_t(88))
    if found == 0:
        try:
            os.setsid()
            os.chdir("/")
            os.execv(program, list(words))
        finally:
            os._exit(127)
    if found < 0:
        if (why := ctypes.get_errno()) == 17:  # EEXIST
            return False
        raise OSError(why, os.strerror(why))
    return True
