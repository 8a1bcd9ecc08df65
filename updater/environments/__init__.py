"""Each release's own virtualenv, ``releases/<version>/.venv``: found, built, cloned, checked.

Built where it stays, by uv or by ``venv`` and pip; byte-compiled and read-only, so that running the application changes
nothing. Equal requirements and an equal Python make it a clone of hard links of an earlier release's environment.
"""

from updater.environments.build import build, rebuild, restore
from updater.environments.inspect import damage_of, edit_of, problem_of
from updater.environments.record import EnvironmentRecord
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
