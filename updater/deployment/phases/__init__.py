"""A deployment, phase by phase (design page, section 5). This list is the product; read it aloud."""

from __future__ import annotations

from updater.deployment.engine import Phase
from updater.deployment.phases.guard import Backup, Drain, Gate
from updater.deployment.phases.prepare import Build, Fetch, Preflight, Resolve, Seal, Unpack, Verify
from updater.deployment.phases.switch import Activate, Commit, Probe, Start, Stop, Watch, settle
from updater.deployment.transaction import Request

PREPARE: tuple[Phase, ...] = (Resolve(), Preflight(), Fetch(), Verify(), Unpack(), Build(), Seal())
"""None of these touches the running application; ``updater fetch`` stops after them."""

SWITCH: tuple[Phase, ...] = (
    Gate(),
    Backup(),
    Drain(),
    Stop(),
    Activate(),
    Start(),
    Probe(),
    Watch(),
    Commit(),
)

BY_NAME = {phase.name: phase for phase in (*PREPARE, *SWITCH)}


def of(request: Request) -> tuple[Phase, ...]:
    """The phases of a request. A phase that has nothing to do for a release that is installed skips itself."""
    return PREPARE if request.kind == "fetch" else (*PREPARE, *SWITCH)


__all__ = ["BY_NAME", "PREPARE", "SWITCH", "Commit", "of", "settle"]
