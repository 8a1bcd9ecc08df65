"""Deployments in processes that need not load anything: for what a test begins with, never for what it tests.

Two thirds of the time that a small deployment takes are the start of Python and the loading of modules, twice over.
"""

from __future__ import annotations

import atexit
import functools
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.forks import WORKER, Forks, worker


@functools.cache
def _forks() -> Forks:
    """One for each process that runs tests; it ends with it."""
    made = Forks(WORKER)
    atexit.register(made.end)
    return made


def deploy(root: Path, request: Mapping[str, Any], env: Mapping[str, str]) -> Any:
    """Run a deployment to its end. Returns the worker's last answer: ``ended`` with its record, or ``error``."""
    if not _forks().living:
        _forks.cache_clear()
    done = _forks().run(partial(worker, str(root), json.dumps(request)), cwd=root, env=env)
    said = done.out.splitlines()
    return json.loads(said[-1]) if said else {"error": f"it died without a word: {done.code} {done.err}"}
