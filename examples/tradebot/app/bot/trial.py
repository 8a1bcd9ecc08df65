"""Is this release on trial? Until updater has found it good, it places no orders."""

from __future__ import annotations

import os
from pathlib import Path


def on_trial() -> bool:
    """While the file that updater names exists. The variable alone would never change in a running process."""
    file = os.environ.get("UPDATER_TRIAL_FILE")
    return os.environ.get("UPDATER_TRIAL") == "1" and file is not None and Path(file).exists()
