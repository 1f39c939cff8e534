"""`python -m worker.health`: exit status 0 when a worker of this machine gave a sign of life within its lease."""

from __future__ import annotations

import socket
import sys
from datetime import timedelta

from sqlalchemy import select

from service.clock import utc_now
from service.db.session import open_database
from service.db.tables import Worker
from service.settings import get_settings


def main() -> int:
    """The exit status."""
    settings = get_settings()
    alive_since = utc_now() - timedelta(seconds=settings.lease_seconds)
    here = f"%@{socket.gethostname()}:%"
    with open_database(settings.database_url).read() as session:
        query = select(Worker.name).where(Worker.name.like(here), Worker.heartbeat_at > alive_since).limit(1)
        return 0 if session.scalar(query) else 1


if __name__ == "__main__":
    sys.exit(main())
