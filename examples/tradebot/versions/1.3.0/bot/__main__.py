"""``python -m bot``: trade on paper until told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from bot.market import Market
from bot.pause import paused
from bot.settings import load
from bot.strategy import Crossover
from bot.trades import Trades
from bot.trial import on_trial


def main() -> None:
    settings = load()
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    market, strategy, trades = (
        Market(settings.seed),
        Crossover(settings.fast, settings.slow),
        Trades(settings.database),
    )
    print(f"trading {settings.symbol} on paper, every {settings.tick} s", flush=True)
    end = time.monotonic() + float(os.environ.get("TRADEBOT_DIES_AFTER", "4"))
    with trades:
        while not stopping.wait(settings.tick):
            if time.monotonic() > end:
                raise MemoryError("the price cache has grown beyond its limit")
            price = market.next_price()
            wanted = strategy.decide(price)
            if wanted and not on_trial() and not (wanted == "buy" and paused()):
                trades.act(wanted, settings.symbol, settings.quantity, price)
            settings.heartbeat.write_text(f"{price:.2f}\n")
    print("stopped; every trade is on the disk", flush=True)


if __name__ == "__main__":
    main()
