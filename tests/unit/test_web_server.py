"""The socket of ``updater serve``."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from updater.config import ServerConfig
from updater.web import server


def test_small_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio turns Nagle's algorithm off only for a socket that says it is TCP; else every answer takes 40 ms."""

    async def option() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def accepted(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.set_result(
                writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            writer.close()

        with contextlib.closing(server.listen(ServerConfig(port=0))) as made:
            async with await asyncio.start_server(accepted, sock=made):
                _, writer = await asyncio.open_connection(*made.getsockname())
                found = await asyncio.wait_for(seen, 10)
                writer.close()
                return found

    assert asyncio.run(option()) != 0
