"""What every route does the same way: take JSON in, give JSON out."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.decoding import BodyDecoder, decode_parameters
from gateway.exchange import Exchange
from gateway.problems import HttpError, HttpReason, encode
from gateway.schemas import NoParameters

JSON: Final = "application/json"
# What an error shows of a header.
_SHOWN_BYTES: Final = 64

T = TypeVar("T", bound=msgspec.Struct)


def read_json(exchange: Exchange, decoder: BodyDecoder[T]) -> T:
    """The request's body. Raises HttpError for another content type, or what is wrong in it."""
    check_content_type(exchange)
    # Not kept beside what is made of it.
    body = b"".join(exchange.body)
    exchange.body.clear()
    return decoder.decode(body)


def check_content_type(exchange: Exchange) -> None:
    """Raises HttpError for a body that is not said to be plain JSON in UTF-8."""
    encoding = exchange.headers.get(b"content-encoding", b"").strip()
    if encoding.lower() not in (b"", b"identity"):
        raise HttpError(
            HttpReason.UNSUPPORTED_MEDIA_TYPE,
            f"Bodies are not decompressed: send this one without `Content-Encoding: "
            f"{_shown(encoding)}`.",
            headers={"Accept-Encoding": "identity"},
        )
    declared = exchange.headers.get(b"content-type", b"")
    kind, _, rest = declared.partition(b";")
    kind = kind.strip().lower()
    if kind != b"application/json" and not (
        kind.startswith(b"application/") and kind.endswith(b"+json")
    ):
        raise HttpError(HttpReason.UNSUPPORTED_MEDIA_TYPE, "Send `Content-Type: application/json`.")
    for parameter in rest.split(b";"):
        name, _, value = parameter.partition(b"=")
        charset = value.strip().strip(b'"')
        if name.strip().lower() == b"charset" and charset.lower() not in (b"utf-8", b"utf8"):
            raise HttpError(
                HttpReason.UNSUPPORTED_MEDIA_TYPE,
                f"Send JSON in UTF-8, not in the charset `{_shown(charset)}`.",
            )


def _shown(header: bytes) -> str:
    return header[:_SHOWN_BYTES].decode("latin-1")


def no_parameters(request: Request) -> None:
    """Raises HttpError when the URL has a query string."""
    if request.scope["query_string"]:
        decode_parameters(request.scope["query_string"], NoParameters)


def parameters(request: Request, cls: type[T]) -> T:
    """The query string as `cls`."""
    return decode_parameters(request.scope["query_string"], cls)


def json_response(value: Any, status: int = 200) -> Response:
    """`value` as JSON."""
    return Response(encode(value), status_code=status, media_type=JSON)
