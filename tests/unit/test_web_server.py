"""The socket of ``updater serve``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from pathlib import Path

import pytest

from updater.config import ServerConfig
from updater.layout import Layout
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


def test_a_server_collects_what_it_drops(tmp_path: Path) -> None:
    """The command line does without, since it is short. A server that did would only ever grow."""
    layout, seen = Layout(tmp_path), list[bool]()
    layout.own.mkdir()
    layout.logs.mkdir(parents=True)

    def ready(_settings: ServerConfig) -> None:
        seen.append(gc.isenabled())
        signal.raise_signal(signal.SIGINT)

    gc.disable()
    try:
        with pytest.raises(KeyboardInterrupt):
            server.serve(layout, ServerConfig(port=0), ready)
    finally:
        gc.enable()
    assert seen == [True]
