"""The release store: which releases are installed, which is in service, which are good, bad or pinned."""

from updater.releases.marks import Marks
from updater.releases.service import InService, in_service
from updater.releases.store import Release, ReleaseRecord, find, installed

__all__ = ["InService", "Marks", "Release", "ReleaseRecord", "find", "in_service", "installed"]
