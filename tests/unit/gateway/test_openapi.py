"""The API's own description is valid, whole, and true."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
from starlette.routing import Route
from support.http import Site

from gateway.openapi import DOCS_PAGE, OPERATIONS, docs_page, openapi_document
from gateway.problems import PROBLEMS, encode
from runtime.errors import Reason

QUERY = {"query": "why?"}


@pytest.fixture(scope="module", params=[False, True])
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(encode(openapi_document("1.2.3", keyed=request.param)))
    return made


def test_it_is_a_valid_openapi_document(document: dict[str, Any]) -> None:
    validate(document, cls=OpenAPIV31SpecValidator)


def test_it_names_every_route_and_no_other(document: dict[str, Any]) -> None:
    served = {
        (route.path.replace("{id:path}", "{id}"), method.lower())
        for route in Site().router.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, item in document["paths"].items() for method in item}
    assert told == served


def test_every_reason_that_routes_give_is_documented() -> None:
    told = {reason for one in OPERATIONS for reason in one.reasons}
    at_the_door = set(PROBLEMS) - told
    # Replaced by the reason that names the worker, later work, or the server's own.
    assert at_the_door == {
        Reason.MODEL_LOADING,
        Reason.UNAVAILABLE,
        Reason.JOB_NOT_FOUND,
        Reason.RERANKER_UNAVAILABLE,
        *(reason for reason in PROBLEMS if PROBLEMS[reason][0] in (401, 405, 500, 504)),
        Reason.DRAINING,
        *(reason for reason in PROBLEMS if reason in ("NOT_FOUND", "OVERLOADED")),
        # Before there is a request to have a route.
        *(reason for reason in PROBLEMS if reason in ("MALFORMED_REQUEST", "HEAD_TOO_LARGE")),
    }


@pytest.mark.parametrize(
    ("method", "path", "template", "body"),
    [
        ("POST", "/query", "/query", QUERY),
        ("POST", "/search", "/search", QUERY),
        ("POST", "/index", "/index", {"documents": [{"text": "x"}]}),
        ("GET", "/documents", "/documents", None),
        ("GET", "/documents/there/it is", "/documents/{id}", None),
        ("DELETE", "/documents/there/it is", "/documents/{id}", None),
        ("GET", "/health", "/health", None),
        ("GET", "/health/live", "/health/live", None),
        ("GET", "/health/ready", "/health/ready", None),
        ("POST", "/query", "/query", {"query": ""}),
        ("GET", "/documents/absent", "/documents/{id}", None),
    ],
)
async def test_what_is_answered_is_what_is_told(
    method: str, path: str, template: str, body: Any
) -> None:
    async with Site().client() as client:
        response = await client.request(method, path, json=body)
        told = (await client.get("/openapi.json")).json()
    answers = told["paths"][template][method.lower()]["responses"]
    content = answers[str(response.status_code)]["content"]
    schema = content[response.headers["content-type"]]["schema"]
    jsonschema.validate(
        response.json(),
        schema | {"components": told["components"]},
        cls=jsonschema.Draft202012Validator,
    )


async def test_the_examples_are_taken() -> None:
    async with Site().client() as client:
        told = (await client.get("/openapi.json")).json()
        for path in ("/query", "/search", "/index"):
            content = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert (await client.post(path, json=content["example"])).status_code == 200


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = docs_page(b'{"a":"</script>"}').decode()
    assert '<script type="application/json" id="openapi">{"a":"<\\/script>"}</script>' in page
    assert not re.search(r"https?://", page)
    assert len(DOCS_PAGE.read_bytes()) < 16_384
