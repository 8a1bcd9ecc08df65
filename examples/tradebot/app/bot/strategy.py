"""Buy when the fast average crosses the slow one upwards, sell when it crosses back."""

from __future__ import annotations

from collections import deque
from statistics import fmean


class Crossover:
    def __init__(self, fast: int, slow: int) -> None:
        if not 0 < fast < slow:
            raise ValueError("fast must be smaller than slow")
        self._prices: deque[float] = deque(maxlen=slow)
        self._fast = fast
        self._above: bool | None = None

    def decide(self, price: float) -> str | None:
        """``buy``, ``sell`` or None, for the next price."""
        self._prices.append(price)
        if len(self._prices) < (self._prices.maxlen or 0):
            return None
        above = fmean(list(self._prices)[-self._fast :]) > fmean(self._prices)
        crossed, self._above = self._above is not None and above != self._above, above
        return ("buy" if above else "sell") if crossed else None
