"""Runs a deployment's worker, or a recovery, that kills itself with SIGKILL at its n-th call that changes the disk.

    python -m tests.crash.killed CALL N worker ROOT FD REQUEST
    python -m tests.crash.killed CALL N recover ROOT

The calls are the operating system's own (``os.fsync``, ``os.replace`` ...), so nothing of updater is replaced. With N = 0 it
runs through and prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

CALLS = ("fsync", "replace", "symlink", "unlink", "mkdir", "link", "write")


def arm(name: str, number: int) -> list[int]:
    seen = [0]
    real = getattr(os, name)

    def call(*arguments: Any, **more: Any) -> Any:
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **more)

    setattr(os, name, call)
    return seen


def main() -> int:
    name, number, what, root, *rest = sys.argv[1:]
    seen = arm(name, int(number))
    if what == "worker":
        from updater.deployment import worker

        code = worker.main([root, *rest])
    else:
        from updater import operations
        from updater.operations import deploying

        deploying.recover(operations.open_root(Path(root)))
        code = 0
    print(f"calls {seen[0]}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
