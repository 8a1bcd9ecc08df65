"""Serve a folder of artifacts as the releases of a repository, until interrupted."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from examples.release_server import ReleaseServer, releases_in


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.release_server", description=__doc__)
    parser.add_argument(
        "--dist",
        type=Path,
        required=True,
        metavar="DIR",
        help="holds NAME-VERSION.tar.gz and NAME-VERSION.md",
    )
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repository to be")
    parser.add_argument("--port", type=int, default=0, help="of the API; 0: any free one (default)")
    parser.add_argument("--token", help="make it a private repository that this token may read")
    parser.add_argument("--quota", type=int, default=5000, help="requests an hour (default: %(default)s)")
    given = parser.parse_args()
    releases = releases_in(given.dist)
    if not releases:
        parser.error(f"{given.dist} holds no NAME-VERSION.tar.gz")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ReleaseServer(
        given.repo,
        releases,
        token=given.token,
        private=given.token is not None,
        quota=given.quota,
        port=given.port,
    ) as server:
        print(server.api_url, flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
