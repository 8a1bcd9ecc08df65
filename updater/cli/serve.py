"""serve."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from updater.cli import output
from updater.cli.output import Face
from updater.config import ServerConfig
from updater.errors import PreflightFailed


@click.command()
@click.option("--host", help="Where to listen; else [server] host, else 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="On which port; else [server] port, else 5000. 0: any free one.",
)
@click.option(
    "--show-token",
    is_flag=True,
    help="Print the API's token and a link that logs a browser in once, and serve nothing.",
)
@click.option(
    "--new-token",
    is_flag=True,
    help="Make a new token first; every login and every client with the old one ends.",
)
@click.pass_obj
def serve(face: Face, host: str | None, port: int | None, show_token: bool, new_token: bool) -> None:
    """Serve the REST API and the dashboard until Ctrl-C. A deployment that they started goes on without them."""
    try:
        from updater.web import access, server
    except ImportError as missing:
        raise PreflightFailed(
            f"the dashboard needs more than is installed: {missing}",
            state="Nothing was started.", advice="install it: pip install 'updater[dashboard]'",
        ) from missing  # fmt: skip
    root = face.open()
    settings = replace(
        root.config.server,
        **{name: value for name, value in (("host", host), ("port", port)) if value is not None},  # type: ignore[arg-type]
    )
    if new_token:
        access.token(root.layout, renew=True)
    if show_token or new_token:
        found = {"token": access.token(root.layout), "login": server.login_url(root.layout, settings)}

        def text() -> None:
            face.say(f"token  {found['token']}")
            face.say(f"login  {found['login']}  (once, within {access.LINK_SECONDS // 60} minutes)")

        face.emit(found, text)
        return
    if not server.is_loopback(settings.host) and not (settings.public_url or "").startswith("https:"):
        face.warn(
            f"{settings.host} can be reached from other machines, and nothing encrypts what they send: put a reverse proxy with TLS "
            "in front and name it in [server] public_url, or use an SSH tunnel"
        )

    def ready(listening: ServerConfig) -> None:
        if face.json:
            click.echo(
                output.as_json({"url": server.url(listening), "host": listening.host, "port": listening.port})
            )
            sys.stdout.flush()
            return
        face.say(f"dashboard  {output.bold(server.url(listening))}")
        # A login link is a secret: it is for a person, not for the log of a service.
        link = (
            server.login_url(root.layout, listening) if sys.stdout.isatty() else "updater serve --show-token"
        )
        face.say(f"log in     {link}")
        sys.stdout.flush()

    server.serve(root.layout, settings, ready)
