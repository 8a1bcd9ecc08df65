"""``/metrics`` in Prometheus' format, read from the records at the moment of the question."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from updater import records, version
from updater.layout import Layout

if TYPE_CHECKING:
    from updater.web.app import Server

Json = dict[str, Any]

OUTCOMES = ("succeeded", "nothing-to-do", "failed", "rolled-back", "rollback-failed", "cancelled")


def route(server: Server) -> Callable[[Request], Awaitable[Response]]:
    async def show(request: Request) -> Response:
        await server.let_in(request)
        text = await run_in_threadpool(exposition, server.layout)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return show


def exposition(layout: Layout) -> bytes:
    """All metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(layout))
    return generate_latest(registry)


class _Facts:
    """A collector: nothing is counted in memory, so a restart of the server loses nothing."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from updater.operations import find_root, looking

        find_root(self.layout.root)
        status = looking.status(self.layout)
        here = status["in_service"]["version"] or ""
        yield InfoMetricFamily("updater", "The version of updater.", {"version": version()})
        yield InfoMetricFamily("updater_release", "The release in service.", {"version": here})
        yield from _processes(status["processes"])
        running = status["deployment"]
        yield _gauge(
            "updater_deployment_running",
            "1 while a deployment runs.",
            float(bool(running and not running["interrupted"])),
        )
        yield _gauge(
            "updater_deployment_interrupted",
            "1 if one was interrupted and not recovered.",
            float(bool(running and running["interrupted"])),
        )
        history = [it for it in records.history(self.layout) if it.get("outcome") != "nothing-to-do"]
        if history:
            yield from _last(history[-1])
        yield from _totals(history)
        yield from _backups(self.layout)
        yield from _update(self.layout)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _processes(found: list[Json]) -> Iterator[Metric]:
    up = GaugeMetricFamily("updater_process_up", "1 if the process runs.", labels=["process"])
    since = GaugeMetricFamily(
        "updater_process_start_time_seconds",
        "When it was started; changes() of it counts restarts.",
        labels=["process"],
    )
    for it in found:
        up.add_metric([it["name"]], float(it["state"] == "running"))
        if it["state"] == "running" and (began := records.moment(it.get("since"))):
            since.add_metric([it["name"]], began.timestamp())
    yield up
    yield since


def _last(record: Json) -> Iterator[Metric]:
    outcome = GaugeMetricFamily(
        "updater_last_deployment_outcome", "1 for how the last deployment ended.", labels=["outcome"]
    )
    for name in OUTCOMES:
        outcome.add_metric([name], float(record.get("outcome") == name))
    yield outcome
    if ended := records.moment(record.get("ended")):
        yield _gauge("updater_last_deployment_timestamp_seconds", "When it ended.", ended.timestamp())
    for key, name, text in (
        ("seconds", "updater_last_deployment_duration_seconds", "How long it took."),
        ("outage_seconds", "updater_last_deployment_outage_seconds", "How long the application was down."),
    ):
        if isinstance(record.get(key), int | float):
            yield _gauge(name, text, float(record[key]))
    phases = GaugeMetricFamily(
        "updater_last_deployment_phase_seconds", "How long each phase took.", labels=["phase"]
    )
    for it in record.get("phases") or ():
        if isinstance(it, dict) and isinstance(it.get("seconds"), int | float):
            phases.add_metric([str(it.get("name"))], float(it["seconds"]))
    yield phases


def _totals(history: list[Json]) -> Iterator[Metric]:
    """Of what the history keeps: a gauge, because old records leave it."""
    totals = GaugeMetricFamily(
        "updater_deployments", "Deployments in the history by outcome.", labels=["outcome"]
    )
    for name in OUTCOMES[2:] + OUTCOMES[:1]:
        totals.add_metric([name], float(sum(it.get("outcome") == name for it in history)))
    yield totals


def _backups(layout: Layout) -> Iterator[Metric]:
    from updater.backups import catalogue

    found = catalogue.found(layout)
    yield _gauge("updater_backups", "Backups that are there.", float(len(found)))
    made = records.moment(found[-1].manifest.created) if found else None
    if made:
        yield _gauge("updater_backup_age_seconds", "Age of the newest backup.", _age(made))


def _age(moment: datetime) -> float:
    return round(max(0.0, (records.now() - moment).total_seconds()), 3)


def _update(layout: Layout) -> Iterator[Metric]:
    from updater.operations import scheduling

    known = scheduling.remembered(layout)
    if known is None:
        return
    answer = known.get("answer") or {}
    yield _gauge(
        "updater_update_available",
        "1 if the last check found a newer release.",
        float(bool(answer.get("update"))),
    )
    if at := records.moment(known.get("at")):
        yield _gauge(
            "updater_last_check_timestamp_seconds", "When the source was last asked.", at.timestamp()
        )
