"""Each release's own virtualenv, ``releases/<version>/.venv``: found, built, cloned, checked.

Built where it stays, by uv or by ``venv`` and pip (uv's rebuild beside it, and moved there when it is whole); byte-compiled and
read-only, so that running the application changes nothing. Equal requirements and an equal Python make it a clone of hard links
of an earlier release's environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from updater.environments.inspect import damage_of, edit_of, problem_of
from updater.environments.record import EnvironmentRecord

if TYPE_CHECKING:
    from updater.environments.building import build, rebuild, restore
    from updater.environments.tools import describe_tool

__all__ = [
    "EnvironmentRecord",
    "build",
    "damage_of",
    "describe_tool",
    "edit_of",
    "problem_of",
    "rebuild",
    "restore",
]

_BUILDING = {"build": "building", "rebuild": "building", "restore": "building", "describe_tool": "tools"}


def __getattr__(name: str) -> Any:
    """What builds is imported when something is built (PEP 562): going to an installed release needs none of it."""
    if name not in _BUILDING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_BUILDING[name]}"), name)
