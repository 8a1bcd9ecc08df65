"""A release server on loopback that answers as GitHub's REST API documents it.

    with ReleaseServer("owner/app", releases_in(folder)) as server:
        print(server.api_url)

It serves the demo and the tests: real HTTP on two ports, as GitHub has an API host and a download host. From the command
line: ``python -m examples.release_server --help``.
"""

from examples.release_server.content import Release, releases_in
from examples.release_server.faults import Fault
from examples.release_server.server import ReleaseServer, Request

__all__ = ["Fault", "Release", "ReleaseServer", "Request", "releases_in"]
