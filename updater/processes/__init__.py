"""The application's processes: started from a release's own directory and interpreter, stopped whole, and proved.

Each process is started through its launcher (a generated ``sh`` script, the same that the emergency scripts run), in a
session of its own; the launcher itself writes the pid file before it becomes the process, so that no kill of the
updater leaves a process that nobody knows. A pid is believed only together with its start time and boot id.

The modules: ``launcher`` and ``bound`` (the configuration it was written for), ``family`` (what belongs to this root),
``state`` (what runs), ``stopping``, ``orphans`` (of a dead updater's child), ``forced`` (its note), ``control`` (start; and
the door to all of these), ``proof`` (from which release).
"""
