"""What can be made to go wrong, on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Fault:
    """A fault for requests whose path contains ``match``, at most ``times`` times.

    ``kind`` and ``value``:

    - ``cut``: close the connection after ``value`` bytes of the body.
    - ``stall``: send ``value`` bytes of the body, then nothing more until the server stops.
    - ``status``: answer with the status ``value`` instead, and the message ``text`` if given.
    - ``no-range``: ignore Range, send all of it; ``no-etag``: and without a validator.
    - ``extra``: send ``value`` bytes more than there are, without a length.
    - ``garbage``: answer 200 with something that is no JSON; ``wrong-type``: with JSON of another shape.
    - ``redirect``: redirect to ``text``.
    - ``body``: send ``content`` instead; ``json``: the same in the API.
    - ``truncated``: list no more of a tree than ``value`` entries.
    - ``retry-after``: answer 429 with ``Retry-After: value``, or ``text`` if given; ``maintenance``: the same with 503.
    """

    match: str
    kind: str
    value: int = 0
    text: str = ""
    content: bytes = b""
    times: int = 1
    seen: int = field(default=0, compare=False)

    def applies(self, path: str) -> bool:
        if self.match in path and self.seen < self.times:
            self.seen += 1
            return True
        return False
