"""Health check of the containers: exit code 0 if the process is ready.

Docker restarts containers that exit, not unhealthy ones. So this check ends the container if its process is not
alive, that is if /healthz reports a main loop that has stopped.
"""

from __future__ import annotations

import os
import signal
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

URL = f"http://127.0.0.1:{os.environ.get('FER_STREAM_METRICS_PORT', '9464')}"
TIMEOUT_S = 2.0


def main(url: str = URL) -> int:
    """Return the exit code for the process whose endpoint is `url`."""
    if status(f"{url}/healthz") == 503:
        os.kill(1, signal.SIGTERM)
    return int(status(f"{url}/readyz") != 200)


def status(url: str) -> int | None:
    """Return the HTTP status of `url`, or None if there is no response."""
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
