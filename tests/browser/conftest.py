from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'updater[dev]'")
pytest.register_assert_rewrite("tests.browser.browsing")

from playwright.sync_api import Browser  # noqa: E402

from tests.browser import browsing  # noqa: E402
from tests.browser.browsing import Serving, Visitor  # noqa: E402
from tests.site import Site  # noqa: E402


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module. It must not outlive that: its loop would be in the way of other tests' own."""
    if browsing.chromium() is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with browsing.browser() as found:
        yield found


@pytest.fixture
def serving(site: Site) -> Iterator[Serving]:
    """The server of the site's root."""
    made = Serving(site.root, site.env())
    yield made
    made.end()


@pytest.fixture
def visit(chromium: Browser, serving: Serving) -> Iterator[Callable[..., Visitor]]:
    """Opens a browser profile on the server; what it complains of fails the test at its end."""
    with ExitStack() as stack:

        def open_(**how: Any) -> Visitor:
            return stack.enter_context(browsing.visit(chromium, serving, **how))

        yield open_
