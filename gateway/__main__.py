"""`python -m gateway`."""

from __future__ import annotations

import sys

from gateway.search.points import FolderInUse
from gateway.server import serve
from gateway.settings import GatewaySettings
from runtime.errors import ServiceError
from runtime.logs import configure_logging
from runtime.settings import load
from runtime.supervision import EXIT_RESOURCE_TAKEN, run


def main() -> None:
    """Runs the gateway. Exit codes: 0 asked to stop, 2 settings, 3 port or data folder taken."""
    settings = load(GatewaySettings)
    configure_logging(settings.log_level)
    try:
        run(serve(settings))
    except ServiceError as error:
        print(error.message, file=sys.stderr)
        sys.exit(EXIT_RESOURCE_TAKEN if isinstance(error, FolderInUse) else 1)


if __name__ == "__main__":
    main()
