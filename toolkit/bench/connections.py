"""As many connections as the system lets a process have."""

from __future__ import annotations

import resource


def allow_connections() -> None:
    """Raise this process's limit of open files to the highest it may choose.

    Over HTTP each running request is a connection, and the usual limit is 1024 (getrlimit(2)).
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
