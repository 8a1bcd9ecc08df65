"""Is a release healthy? All required probes pass several times in a row, and then it is watched.

A process that is gone fails at once and for good: one that the supervisor of yesterday would have restarted is a
crash loop, not health. Probes that are not required warn and decide nothing (F31).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from updater.config import Config, ProbeConfig
from updater.errors import HealthFailed
from updater.health.probes import Answer, Subject, ask
from updater.layout import Layout
from updater.processes import control, family, state
from updater.subprocesses import Identity

Check = Callable[[], None]
Warn = Callable[[str], None]

RETRIES = 1
"""While watching, a failed probe is asked once more at once; a process that is gone is not."""


@dataclass(frozen=True)
class Result:
    """One probe of one process, asked once."""

    process: str
    probe: ProbeConfig
    answer: Answer

    @property
    def decides(self) -> bool:
        return self.probe.required

    def line(self) -> str:
        return f"{self.process}: {self.answer.summary}"


def ask_all(
    layout: Layout, config: Config, version: str, names: Sequence[str], *, check: Check | None = None
) -> list[Result]:
    """Ask every probe of these processes once. Only ``check`` raises."""
    results = []
    for name in names:
        process = config.processes[name]
        subject = Subject(layout, process, version, config.own_variables)
        for probe in sorted(process.probes, key=lambda it: it.type != "alive"):
            answer = ask(subject, probe, check)
            results.append(Result(name, probe, answer))
            if probe.type == "alive" and not answer.ok:
                break  # the others would only say the same less clearly
    return results


def wait_healthy(
    layout: Layout,
    config: Config,
    version: str,
    names: Sequence[str],
    *,
    successes: int | None = None,
    check: Check | None = None,
    on_progress: Callable[..., None] | None = None,
    warn: Warn | None = None,
) -> None:
    """Wait until every required probe has passed ``successes`` times in a row (left out: ``health.successes``), at most
    ``health.timeout`` seconds.

    Raises:
        HealthFailed: a process died, or the time is up; with the last answers and log lines as evidence.
    """
    health = config.health
    wanted = successes or health.successes
    before = _identities(layout, names)
    deadline = time.monotonic() + health.timeout
    passes = tries = 0
    while True:
        if check:
            check()
        round_began = time.monotonic()
        results = ask_all(layout, config, version, names, check=check)
        tries += 1
        _no_process_lost(layout, names, before)
        failing = [it for it in results if it.decides and not it.answer.ok]
        passes = 0 if failing else passes + 1
        if on_progress:
            text = failing[0].line() if failing else f"passed {passes} of {wanted} times"
            on_progress(text, done=passes, total=wanted)
        if passes >= wanted:
            _warn_of(results, warn)
            return
        if time.monotonic() > deadline:
            raise _unhealthy(layout, failing, f"{tries} tries in {health.timeout:g} s")
        _pause(max(0.0, round_began + health.interval - time.monotonic()), check)


def watch(
    layout: Layout,
    config: Config,
    version: str,
    names: Sequence[str],
    *,
    check: Check | None = None,
    on_progress: Callable[..., None] | None = None,
    warn: Warn | None = None,
) -> None:
    """Watch for ``health.watch`` seconds: every process stays the same one, and no required probe fails twice running.

    Raises:
        HealthFailed: one did not, or did; with evidence.
    """
    health = config.health
    before = _identities(layout, names)
    begun = time.monotonic()
    results: list[Result] = []
    while (seen := time.monotonic() - begun) < health.watch:
        if on_progress:
            on_progress(f"watching for {health.watch:g} s", done=round(seen, 1), total=health.watch)
        results = ask_all(layout, config, version, names, check=check)
        _no_process_lost(layout, names, before)
        failing = [it for it in results if it.decides and not it.answer.ok]
        if failing:
            again = _again(layout, config, version, failing, check)
            if again:
                raise _unhealthy(
                    layout, again, f"{RETRIES + 1} of {RETRIES + 1} tries, {seen:.0f} s after it was healthy"
                )
        _pause(min(health.interval, max(0.0, begun + health.watch - time.monotonic())), check)
    _no_process_lost(layout, names, before)
    _warn_of(results, warn)


def _again(
    layout: Layout, config: Config, version: str, failing: list[Result], check: Check | None
) -> list[Result]:
    found = []
    for it in failing:
        answer = ask(
            Subject(layout, config.processes[it.process], version, config.own_variables),
            it.probe,
            check,
        )
        if not answer.ok:
            found.append(Result(it.process, it.probe, answer))
    return found


def _identities(layout: Layout, names: Sequence[str]) -> dict[str, state.Running | None]:
    return {name: _running(layout, name) for name in names}


def _running(layout: Layout, name: str) -> state.Running | None:
    found = state.find(layout, name)
    if found is None:  # perhaps only its pid file is gone
        control.adopt(layout)
        found = state.find(layout, name)
    return found


def _no_process_lost(layout: Layout, names: Sequence[str], before: dict[str, state.Running | None]) -> None:
    for name in names:
        was, now = before[name], _running(layout, name)
        if now is None:
            # One that died before anybody looked is known by its pid file only.
            one = was.identity if was else Identity.parse(state.record(layout, name))
            how = (control.exit_text(one.pid) if one else None) or "died"
            raise HealthFailed(
                f"{name} {how}", details=[*control.evidence(layout, name), *_in_background(layout, name)]
            )
        if was is None or now.identity != was.identity:
            raise HealthFailed(
                f"{name} was restarted by somebody else", details=control.evidence(layout, name)
            )


def _in_background(layout: Layout, name: str) -> list[str]:
    """A hint, where a process has left others behind: it may mean to be a daemon."""
    left = [str(it.row.pid) for it in family.marked(layout) if it.name == name]
    if not left:
        return []
    return [
        f"it left pid {', '.join(left)} behind: a process must stay in the foreground (no --daemon or the like)"
    ]


def _unhealthy(layout: Layout, failing: list[Result], tries: str) -> HealthFailed:
    details: list[str] = []
    for it in failing:
        details += [f"{it.line()} ({tries})", *it.answer.evidence]
    for name in dict.fromkeys(it.process for it in failing):
        details += control.evidence(layout, name)
    return HealthFailed(failing[0].line(), details=details)


def _warn_of(results: list[Result], warn: Warn | None) -> None:
    for it in results:
        if warn and not it.decides and not it.answer.ok:
            warn(f"{it.line()} (not required)")


def _pause(seconds: float, check: Check | None) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if check:
            check()
        time.sleep(min(left, 0.1))
