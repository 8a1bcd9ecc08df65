"""A deployment, phase by phase (design page, section 5). This list is the product; read it aloud."""

from __future__ import annotations

from updater.deployment.engine import Phase
from updater.deployment.phases.configure import Configure
from updater.deployment.phases.guard import Backup, Drain, Gate
from updater.deployment.phases.migrate import Migrate, Rehearse
from updater.deployment.phases.prepare import Build, Fetch, Preflight, Resolve, Seal, Unpack, Verify
from updater.deployment.phases.restore import Choose, Load, Restore, Stage
from updater.deployment.phases.switch import Activate, Commit, CommitData, Probe, Start, Stop, Watch, settle
from updater.deployment.transaction import Request

PREPARE: tuple[Phase, ...] = (Resolve(), Preflight(), Fetch(), Verify(), Unpack(), Build(), Seal())
"""None of these touches the running application; ``updater fetch`` stops after them."""

SWITCH: tuple[Phase, ...] = (
    Choose(),
    Stage(),
    Gate(),
    Backup(),
    Rehearse(),
    Drain(),
    Stop(),
    Configure(),
    Restore(),
    Load(),
    Migrate(),
    Activate(),
    Start(),
    Probe(),
    Watch(),
    Commit(),
)

RESTORE: tuple[Phase, ...] = (
    Choose(),
    Stage(),
    Gate(),
    Backup(),
    Drain(),
    Stop(),
    Restore(),
    Load(),
    Start(),
    Probe(),
    CommitData(),
)
"""Data come back, the release stays."""

EVERY = (*PREPARE, *SWITCH)
"""What is undone where the journal does not tell: by the facts on the disk."""


def of(request: Request) -> tuple[Phase, ...]:
    """The phases of a request. A phase that has nothing to do for it skips itself."""
    if request.kind == "restore":
        return RESTORE
    return PREPARE if request.kind == "fetch" else (*PREPARE, *SWITCH)


__all__ = ["EVERY", "PREPARE", "RESTORE", "SWITCH", "Commit", "of", "settle"]
