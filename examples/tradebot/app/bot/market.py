"""A market that needs no network: a random walk, the same for the same seed."""

from __future__ import annotations

import random


class Market:
    def __init__(self, seed: int, price: float = 100.0) -> None:
        self._random = random.Random(seed)
        self._price = price

    def next_price(self) -> float:
        self._price = max(1.0, self._price * (1 + self._random.gauss(0, 0.01)))
        return round(self._price, 2)
