"""The page and its health."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, render_template

from bot.settings import data_directory
from bot.trial import on_trial

FRESH = 30.0
"""Seconds after which a heartbeat is too old."""


def version() -> str:
    """The version of the release that this code is in."""
    return (Path(__file__).resolve().parent.parent / "VERSION").read_text(encoding="utf-8").strip()


def trades(limit: int = 20) -> list[dict[str, Any]]:
    """The last trades, newest first."""
    database = data_directory() / "trades.db"
    connection = sqlite3.connect(f"file:{database.resolve()}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM trades ORDER BY id DESC LIMIT ?", (limit,))
        return [dict(row) for row in rows]
    finally:
        connection.close()


def heartbeat_age() -> float | None:
    """Seconds since the bot's last tick; None if there was none."""
    try:
        return time.time() - (data_directory() / "heartbeat").stat().st_mtime
    except FileNotFoundError:
        return None


def make_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def page() -> str:
        try:
            found = trades()
        except sqlite3.Error:
            found = []
        return render_template("page.html", version=version(), trades=found, trial=on_trial())

    @app.get("/health")
    def health() -> tuple[Response, int]:
        age = heartbeat_age()
        try:
            trades(1)
            database = "ok"
        except sqlite3.Error as failure:
            database = str(failure)
        healthy = age is not None and age < FRESH and database == "ok"
        body = {
            "status": "ok" if healthy else "sick",
            "version": version(),
            "release": os.environ.get("UPDATER_RELEASE"),
            "heartbeat_age": age and round(age, 2),
            "database": database,
            "trial": on_trial(),
        }
        return jsonify(body), 200 if healthy else 503

    return app
