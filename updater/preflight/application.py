"""Checks of the application: may it be interrupted, is it well now, and would the new processes find what they need?"""

from __future__ import annotations

from pathlib import PurePosixPath

from updater.config import Config
from updater.layout import Layout
from updater.preflight import Finding, ok, warning
from updater.preflight.plan import Plan
from updater.releases import service, shared


def may_be_interrupted(layout: Layout, config: Config, plan: Plan) -> Finding:
    """The gate, asked now; what counts is the answer at the moment."""
    from updater import gate

    here = service.in_service(layout).release
    if not config.gate.asks or here is None:
        return ok("nothing is asked")
    answer = gate.ask(layout, config, here)
    if answer.free:
        return ok(answer.reason)
    if config.gate.on_busy == "wait" and answer.certain:
        return ok(f"busy now, which a deployment waits for: {answer.reason}")
    remedy = f"wait until it is free, or interrupt it: {plan.forced}"
    return warning(f"busy: {answer.reason}", "nothing: --force was given" if plan.force else remedy)


def healthy(layout: Layout, config: Config) -> Finding:
    """What is not well now is no base to come back to."""
    from updater import health
    from updater.processes import state

    here = service.in_service(layout).release
    running = [it.name for it in state.running(layout) if it.release == here and it.name in config.processes]
    if here is None or not running:
        return ok("nothing runs")
    ill = [it for it in health.ask_all(layout, config, here, running) if it.decides and not it.answer.ok]
    if ill:
        return warning(f"{here} is not healthy now: {ill[0].process}: {ill[0].answer.summary}",
            "see `updater health`; a failed deployment would come back to that",
        )  # fmt: skip
    return ok(f"{', '.join(running)} of {here} healthy")


def ports(layout: Layout, config: Config, plan: Plan) -> Finding:
    """The ports that the probes ask are free, or listened on by the application itself."""
    from updater.processes import using

    asked = sorted(using.ports_asked(probe for it in config.processes.values() for probe in it.probes))
    taken = [port for port in asked if _is_taken(port)]
    if not taken:
        return ok(f"free: {', '.join(map(str, asked))}" if asked else "no probe names one")
    listening = using.listeners(taken)
    strange = using.strangers(layout, listening)
    if strange:
        told = "; ".join(f"{port} is listened on by {it.name} (pid {it.pid})" for port, it in strange.items())
        return plan.problem(
            f"{told}: not by this application", "end that program, or give one of the two another port"
        )
    if len(listening) < len(taken) and not using.ours(layout):
        unknown = ", ".join(str(port) for port in taken if port not in listening)
        return warning(
            f"somebody listens on {unknown}, and nothing of this application runs",
            f"see who it is: lsof -i :{taken[0]}",
        )
    return ok(f"{', '.join(map(str, taken))} listened on by the application itself")


def _is_taken(port: int) -> bool:
    import socket

    for host in ("127.0.0.1", "::1"):
        try:
            with socket.create_connection((host, port), timeout=1):
                return True
        except OSError:
            continue
    return False


def shared_files(layout: Layout, config: Config) -> Finding:
    """Files that releases are given from ``shared/`` are there and hold something (F26)."""
    here = service.in_service(layout).release
    links = config.shared or (shared.links(layout, here) if here else {})
    empty = []
    for below in sorted(set(links.values())):
        place = layout.shared / below
        named_as_file = PurePosixPath(below).suffix or shared.is_environment(below)
        if named_as_file and place.is_file() and place.stat().st_size == 0:
            empty.append(f"shared/{below}")
        elif place.is_symlink() and not place.exists():
            empty.append(f"shared/{below} (a link to nothing)")
    if empty:
        return warning(
            f"empty: {', '.join(empty)}", "see that this is meant: a backup holds what it was before"
        )
    return ok(f"{len(links)} paths are shared" if links else "none are configured")
