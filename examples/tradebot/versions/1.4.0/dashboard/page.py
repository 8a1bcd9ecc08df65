"""The page and its health."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as Answer

from bot.trial import on_trial
from dashboard.ledger import heartbeat_age, positions, trades
from dashboard.updates import NoAnswer, Updates

FRESH = 30.0
"""Seconds after which a heartbeat is too old."""


def version() -> str:
    """The version of the release that this code is in."""
    return (Path(__file__).resolve().parent.parent / "VERSION").read_text(encoding="utf-8").strip()


def profit(found: list[dict[str, Any]]) -> float:
    """What the closed ones of these trades have earned."""
    closed = [trade for trade in found if trade["close_price"] is not None]
    earned: float = sum((trade["close_price"] - trade["price"]) * trade["quantity"] for trade in closed)
    return round(earned, 2)


def from_this_page() -> bool:
    """Whether a form of ours was sent. Neither a page elsewhere nor one that took this server's address for its own name
    (DNS rebinding) may press the button."""
    local = urlsplit(request.host_url).hostname in ("127.0.0.1", "localhost", "::1")
    return local and request.headers.get("Origin") == request.host_url.rstrip("/")


def make_app() -> Flask:
    app = Flask(__name__)
    updates = Updates.configured()

    @app.post("/update")
    def update() -> tuple[str, int] | Answer:
        if not from_this_page() or updates is None:
            return "not from here", 403
        try:
            updates.start(request.form["tag"])
        except NoAnswer as why:
            return render_template("page.html", version=version(), trial=on_trial(), refused=why), 502
        return redirect("/", 303)

    @app.get("/")
    def page() -> tuple[str, int]:
        shown: dict[str, Any] = {"version": version(), "trial": on_trial()}
        shown["banner"] = updates and updates.banner()
        try:
            found = trades()
            shown |= {"trades": found, "positions": positions(), "profit": profit(found)}
            return render_template("page.html", **shown), 200
        except sqlite3.Error as failure:  # "no trades" would be a lie
            return render_template("page.html", problem=failure, **shown), 503

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
            "heartbeat_age": None if age is None else round(age, 2),
            "database": database,
            "trial": on_trial(),
        }
        return jsonify(body), 200 if healthy else 503

    return app
