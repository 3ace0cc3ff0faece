"""Writes every setting into docs/configuration.md and .env.example, from the classes that read it.

`--check` writes nothing and fails when one of the two is out of date.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from deploy.local import LocalSettings
from embedder_worker.settings import EmbedderSettings
from gateway.settings import GatewaySettings
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings
from runtime.settings import Settings, WorkerSettings

ROOT: Final = Path(__file__).parents[1]
GUIDE: Final = ROOT / "docs" / "configuration.md"
EXAMPLE: Final = ROOT / ".env.example"

Fields = dict[str, FieldInfo]

# What .env.example shows for a setting that is not set by default.
EXAMPLES: Final = {
    "api_keys": "a-long-random-string,another-one",
    "embedder_target_next": "localhost:50061",
    "embedding_model_next": "BAAI/bge-small-en-v1.5",
    "filter_fields": "team,year:integer",
    "lm_api_base": "http://localhost:11434/v1",
    "lm_model": "gpt-3.5-turbo",
    "lm_temperature": "0.2",
    "openai_api_key": "sk-...",
    "qdrant_api_key": "the-key-of-your-qdrant",
    "qdrant_url": "http://localhost:6333",
    "redis_url": "redis://localhost:6379",
}
# Nobody sets these by hand.
INTERNAL: Final = {"control_fd"}
EXAMPLE_WIDTH: Final = 98


def groups() -> dict[str, tuple[str, Fields]]:
    """Name of each table in the guide → its title and the fields it lists."""
    return {
        "gateway": ("Gateway", _own(GatewaySettings, Settings)),
        "embedder": ("Embedder", _own(EmbedderSettings, WorkerSettings)),
        "reranker": ("Reranker", _own(RerankerSettings, WorkerSettings)),
        "generator": ("Generator", _own(GeneratorSettings, WorkerSettings)),
        "workers": ("Every worker", _own(WorkerSettings, Settings, "grpc_port")),
        "processes": ("Every process", dict(Settings.model_fields)),
        "local": ("make run", _own(LocalSettings, Settings, "server_host")),
    }


def _own(settings: type[Settings], shared: type[Settings], *without: str) -> Fields:
    """The fields that `settings` adds to `shared`, and those whose default it changes."""
    return {
        name: field
        for name, field in settings.model_fields.items()
        if name not in without
        and (
            name not in shared.model_fields
            or field.default != shared.model_fields[name].default
            or name == "grpc_port"
        )
    }


def guide(text: str) -> str:
    """The guide with its tables written anew."""
    for name, (_, fields) in groups().items():
        mark = rf"(<!-- settings: {name} -->\n).*?(<!-- end -->)"
        table = "".join(_table(fields))
        text, found = re.subn(mark, lambda m, t=table: m[1] + t + m[2], text, flags=re.DOTALL)
        if found != 1:
            raise ValueError(f"{GUIDE.name} has no place for the settings of {name!r}")
    return text


def _table(fields: Fields) -> Iterator[str]:
    yield "| Name | Default | Allowed | Meaning |\n|---|---|---|---|\n"
    for name, field in fields.items():
        cells = (_code(name.upper()), _code(_default(field)), _allowed(field), _meaning(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def example() -> str:
    """`.env.example`: everything commented out, each with its default or an example."""
    head = (
        "# Copy to .env and uncomment what you change. Each line shows the default, or an example",
        "# where there is none. No quotes and no comments behind values: `docker run",
        "# --env-file` takes them literally. docs/configuration.md has the same as tables.",
    )
    return "\n".join((*head, *_example_lines())) + "\n"


def _example_lines() -> Iterator[str]:
    seen: set[str] = set()
    for title, fields in groups().values():
        yield from ("", f"# --- {title} ".ljust(EXAMPLE_WIDTH, "-"))
        for name, field in fields.items():
            if name in seen | INTERNAL:
                continue
            # Ports differ from worker to worker: one file for all cannot set them.
            if name == "grpc_port":
                continue
            seen.add(name)
            meaning = _meaning(field)
            if not _default(field) and "not set" not in meaning.lower().replace("unset", "not set"):
                meaning += " (not set)"
            yield ""
            yield from textwrap.wrap(
                meaning,
                EXAMPLE_WIDTH,
                initial_indent="# ",
                subsequent_indent="# ",
                break_on_hyphens=False,
            )
            yield f"#{name.upper()}={_default(field) or EXAMPLES[name]}"


def _meaning(field: FieldInfo) -> str:
    if not field.description:
        raise ValueError("a setting without a description")
    return field.description


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _allowed(field: FieldInfo) -> str:
    if choices := list(_choices(field.annotation)):
        return ", ".join(_code(choice) for choice in choices)
    if field.annotation is bool:
        return "`true`, `false`"
    low = high = ""
    for limit in field.metadata:
        match limit:
            case annotated_types.Ge(ge=value):
                low = f"{value:g}" if isinstance(value, float) else f"{value}"
            case annotated_types.Gt(gt=value):
                low = f"above {value}"
            case annotated_types.Le(le=value):
                high = f"{value:g}" if isinstance(value, float) else f"{value}"
            case annotated_types.Lt(lt=value):
                high = f"below {value}"
    between = ", " if high.startswith("below") else " to "
    return between.join(part for part in (low, high) if part)


def _choices(annotation: object) -> Iterable[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _code(text: str) -> str:
    return f"`{text}`" if text else "not set"


def main(arguments: list[str]) -> int:
    """0 when the files are current or were written, 1 when `--check` finds them out of date."""
    wanted = {GUIDE: guide(GUIDE.read_text()), EXAMPLE: example()}
    if arguments == ["--check"]:
        stale = [path for path, text in wanted.items() if path.read_text() != text]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run scripts/settings_docs.py")
        return 1 if stale else 0
    for path, text in wanted.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
