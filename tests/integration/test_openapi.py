"""The API does what its own description says, to whatever schemathesis thinks of: nothing undocumented, and no 5xx."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import requests
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import unsupported_method

from tests.dashboard import PATIENCE, Dashboard, world
from updater.web.api import ENDPOINTS


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A throw-away: every endpoint is called in earnest."""
    with world(tmp_path_factory.mktemp("api"), "v1.0.0") as made:
        yield made
        made.is_quiet()


def test_the_document_lists_every_endpoint(api: Dashboard) -> None:
    document = api.told("/api/openapi.json")
    assert document["openapi"].startswith("3.1")
    known = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    others = {("/api/update/events", "GET"), ("/metrics", "GET")}
    assert known == {(it.path, it.method) for it in ENDPOINTS} | others
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            assert one["summary"] and one["operationId"] and "401" in one["responses"], (method, path)


@pytest.mark.parametrize("path", [it.path for it in ENDPOINTS] + ["/metrics"])
def test_it_is_as_described(api: Dashboard, path: str) -> None:
    token = {"Authorization": f"Bearer {api.known_token}"}
    schema = schemathesis.openapi.from_url(
        f"{api.url}/api/openapi.json", headers=token, config=SchemathesisConfig()
    )
    method = next((it.method for it in ENDPOINTS if it.path == path), "GET")
    operation = schema[path][method]
    session = requests.Session()
    session.trust_env = False

    @hypothesis.settings(
        max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )  # fmt: skip
    @hypothesis.given(operation.as_strategy())
    def conforms(case: schemathesis.Case) -> None:
        case.call_and_validate(
            session=session, headers=token, timeout=PATIENCE, excluded_checks=[unsupported_method]
        )

    conforms()
