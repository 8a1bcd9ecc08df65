"""Checks of the source: does it have the release, does it answer, and would it go on answering?"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlsplit

from updater import records
from updater.config import SourceConfig
from updater.preflight import Finding, failed, ok, warning

FEW = 10
"""Requests that a deployment may need."""

SKEW = 300.0
"""Seconds by which our clock may differ from the source's before certificates and dates are in doubt."""


def api(config: SourceConfig) -> Finding:
    """The API answers, our token is taken, requests are left, and its clock and ours agree. The request for it costs none."""
    from updater.sources.github import GitHubSource

    found = GitHubSource(config, None).quota()
    here = urlsplit(config.api_url).hostname
    said, remedy = [f"{here} answers"], []
    if found.date is not None:
        skew = (records.now() - found.date).total_seconds()
        if abs(skew) > SKEW:
            said.append(
                f"by its clock ours is {abs(skew) / 60:,.0f} minutes {'ahead' if skew > 0 else 'behind'}"
            )
            remedy.append("set the clock (timedatectl set-ntp true)")
    if found.remaining is None or found.limit is None or found.reset is None:
        said.append("it does not count requests")
    else:
        until = f"{datetime.fromtimestamp(min(found.reset, 2**33), UTC).astimezone():%H:%M}"
        said.append(f"{found.remaining:,} of {found.limit:,} requests left until {until}")
        if found.remaining < FEW:
            token = (
                "" if found.with_token else f", or set {config.token_env} to an access token (5,000 an hour)"
            )
            remedy.append(f"wait until {until}{token}")
    text = ", ".join(said)
    if found.remaining == 0:
        return failed(text, "; ".join(remedy))
    return warning(text, "; ".join(remedy)) if remedy else ok(text)
