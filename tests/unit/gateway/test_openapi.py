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

from gateway.admission import Admission
from gateway.openapi import DOCS_PAGE, docs_page, openapi_document
from gateway.operations import OPERATIONS
from gateway.problems import PROBLEMS, HttpError, encode
from runtime.errors import Reason, ServiceError

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
        if isinstance(route, Route) and route.path != "/"  # the redirect to the page
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, method) for path, item in document["paths"].items() for method in item}
    assert told == served


def test_parameters_are_told_as_they_are_enforced() -> None:
    paths = openapi_document("1", keyed=False)["paths"]

    def told(method: str, path: str) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in paths[path][method]["parameters"]}

    where = told("delete", "/documents")
    assert (where["filter"]["required"], where["collection"]["required"]) == (True, False)
    assert not told("get", "/documents")["filter"]["required"]
    name, document_id = told("delete", "/collections/{name}"), told("get", "/documents/{id}")
    for kind, good, bad in (
        (name["name"]["schema"], "a" * 63, ("", "a" * 64, "A", "-a", "a\n")),
        (document_id["id"]["schema"], "a/b" * 85, ("", "a" * 257, "a\nb")),
    ):
        check = jsonschema.Draft202012Validator(kind)
        assert check.is_valid(good)
        assert not any(check.is_valid(one) for one in bad)


def test_the_page_finds_an_answer_of_every_operation() -> None:
    for path, methods in openapi_document("1", keyed=False)["paths"].items():
        for operation in methods.values():
            good = [status for status in operation["responses"] if status.startswith("2")]
            assert {"200", "202"} >= set(good) != set(), path
    # It looks for these two alone: a statement that fails leaves the whole page empty.
    assert '(op.responses["200"] || op.responses["202"]).content' in DOCS_PAGE.read_text()


def test_every_reason_that_routes_give_is_documented() -> None:
    told = {reason for one in OPERATIONS for reason in one.reasons}
    at_the_door = set(PROBLEMS) - told
    # Replaced by the reason that names the worker, later work, or the server's own.
    assert at_the_door == {
        Reason.MODEL_LOADING,
        Reason.UNAVAILABLE,
        Reason.RERANKER_UNAVAILABLE,
        *(reason for reason in PROBLEMS if PROBLEMS[reason][0] in (401, 405, 500, 504)),
        Reason.DRAINING,
        *(reason for reason in PROBLEMS if reason in ("NOT_FOUND", "OVERLOADED")),
        # Before there is a request to have a route.
        *(reason for reason in PROBLEMS if reason in ("MALFORMED_REQUEST", "HEAD_TOO_LARGE")),
    }


def refusal(admission: Admission) -> str:
    with pytest.raises((HttpError, ServiceError)) as caught, admission:
        pass
    return str(caught.value.reason)


def test_what_the_door_answers_is_told_of_every_route() -> None:
    full, closed = Admission(0), Admission(1)
    full.open()
    closed.close()
    refusals = {refusal(Admission(1)), refusal(full), refusal(closed), "UNAUTHORIZED"}
    assert len(refusals) == 4
    document = openapi_document("1", keyed=True)
    for one in OPERATIONS:
        answers = document["paths"][one.path][one.method]["responses"]
        words = " ".join(answer["description"] for answer in answers.values())
        assert one.is_open or all(f"`{reason}`" in words for reason in refusals), one.path


@pytest.mark.parametrize(
    ("method", "path", "template", "body"),
    [
        ("POST", "/query", "/query", QUERY),
        ("POST", "/search", "/search", QUERY),
        ("POST", "/index", "/index", {"documents": [{"text": "x"}]}),
        ("GET", "/documents", "/documents", None),
        ("DELETE", "/documents?filter=%7B%22n%22:1%7D", "/documents", None),
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
