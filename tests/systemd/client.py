"""A client inside the machine's network: asks again and again, each time on a connection of its own, and counts.

    python client.py SECONDS PATH [BODY]

Prints how many requests ended in which way, as JSON: a status, or the name of the error.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections import Counter


def main(seconds: float, path: str, body: str | None) -> None:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request("POST" if body else "GET", path, body, headers)
            response = connection.getresponse()
            response.read()
            outcomes[str(response.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            outcomes[type(error).__name__] += 1
        finally:
            connection.close()

    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
