"""What is remembered of an environment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EnvironmentRecord:
    """How an environment was built.

    ``fingerprint``: SHA-256 over everything that decides what is in it. ``listing``: SHA-256 over names, sizes and times
    of its files, to see cheaply that nobody touched it. ``interpreter``: size and time of the interpreter's file.
    ``origins``: for each package, a sum over where the release says that it comes from; without them nothing is built
    upon this environment.
    """

    tool: str
    tool_version: str
    kind: str
    files: tuple[str, ...]
    python: str
    python_version: str
    interpreter: str
    fingerprint: str
    listing: str
    packages: tuple[tuple[str, str], ...]
    seconds: float
    cloned_from: str | None = None
    origins: tuple[tuple[str, str], ...] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> EnvironmentRecord | None:
        """The record that :meth:`as_json` described; None if it is not one."""
        with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):
            values = {name: data[name] for name in cls.__dataclass_fields__ if name in (data or {})}  # type: ignore[index]
            values["packages"] = tuple((str(name), str(version)) for name, version in values["packages"])
            if values.get("origins") is not None:
                values["origins"] = tuple((str(name), str(said)) for name, said in values["origins"])
            values["files"] = tuple(map(str, values["files"]))
            texts = ("tool", "kind", "python", "python_version", "interpreter", "fingerprint", "listing")
            if all(isinstance(values[name], str) for name in texts):
                return cls(**values)
        return None

    def summary(self) -> str:
        """One line for people."""
        how = f"cloned from {self.cloned_from}" if self.cloned_from else f"built with {self.tool}"
        return f"Python {self.python_version}, {len(self.packages)} packages, {how}"
