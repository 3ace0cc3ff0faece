"""What the developer's own machine would bring into a test, taken away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from support.deployables import FOREIGN_NAMES, SETTINGS, environment_names

# OpenTelemetry's own variables would send the tests' traces somewhere, and a proxy
# would be asked for loopback.
FOREIGN_PREFIXES: Final = ("OTEL_",)
PROXIES: Final = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
KNOWN: Final = FOREIGN_NAMES.union(PROXIES, *(environment_names(name) for name in SETTINGS))


@contextmanager
def bare(folder: Path) -> Iterator[None]:
    """Inside, the working folder is `folder`, where no `.env` lies, and no setting is set.

    Processes that are started inside inherit both.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            # Settings are read whatever the case of their names.
            if name.upper() in KNOWN or name.startswith(FOREIGN_PREFIXES):
                patch.delenv(name)
        patch.chdir(folder)
        yield
