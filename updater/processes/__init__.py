"""The application's processes: started from a release's own directory and interpreter, stopped whole, and proved.

Each process is started through its launcher (a generated ``sh`` script, the same that the emergency scripts run), in a
session of its own; the launcher itself writes the pid file before it becomes the process, so that no kill of the
updater leaves a process that nobody knows. A pid is believed only together with its start time and boot id.
"""

from updater.processes.control import force_stop, names_running, start, stop, stop_release
from updater.processes.proof import in_use, prove
from updater.processes.state import Running, Status, running, status

__all__ = [
    "Running",
    "Status",
    "force_stop",
    "in_use",
    "names_running",
    "prove",
    "running",
    "start",
    "status",
    "stop",
    "stop_release",
]
