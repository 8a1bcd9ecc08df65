"""What is about to happen, as far as the checks need to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What is about to happen, as far as the checks need to know."""

    target: str | None
    """The release to put into service; None: not known (the source was not asked)."""
    installed: bool
    artifact_size: int | None
    force: bool = False
    kind: str = "deploy"
    """What is asked for: deploy, fetch, activate or rollback."""
    rebuild: bool = False
