"""`python -m gateway`."""

from __future__ import annotations

import sys

import uvloop

from gateway.search.points import FolderInUse
from gateway.server import serve
from gateway.settings import GatewaySettings
from runtime.errors import ServiceError
from runtime.logs import configure_logging
from runtime.settings import load
from runtime.supervision import EXIT_RESOURCE_TAKEN


def main() -> None:
    """Runs the gateway. Exit codes: 0 asked to stop, 2 settings, 3 port or data folder taken."""
    settings = load(GatewaySettings)
    configure_logging(settings.log_level)
    try:
        uvloop.run(serve(settings))
    except FolderInUse as error:
        print(error.message, file=sys.stderr)
        sys.exit(EXIT_RESOURCE_TAKEN)
    except ServiceError as error:
        print(error.message, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
