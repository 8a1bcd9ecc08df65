"""Runs a deployment's worker that kills itself with SIGKILL at a point that has a name.

python -m tests.scripts.killed POINT ROOT FD REQUEST

built       the environment is built, the release has no seal yet
stopped     the old processes are stopped, current still names the old release
activated   current names the new release, nothing of it runs
started     the new processes run
committed   .updater/good has been renamed to the new release, and nothing tells so yet
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

AFTER = {"built": "build", "stopped": "stop", "activated": "activate", "started": "start"}


def main() -> int:
    point, *rest = sys.argv[1:]
    write, replace = os.write, os.replace
    line = f'"kind":"done","mono":@,"phase":"{AFTER.get(point)}"'.partition("@")

    def writes(fd: int, payload: Any) -> int:
        written = write(fd, payload)
        if line[0].encode() in bytes(payload) and line[2].encode() in bytes(payload):
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def replaces(source: Any, target: Any, **more: Any) -> None:
        replace(source, target, **more)
        if point == "committed" and str(target).endswith(".updater/good"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.write, os.replace = writes, replaces
    from updater.deployment import worker

    return worker.main(rest)


if __name__ == "__main__":
    sys.exit(main())
