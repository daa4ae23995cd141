"""A client inside the machine's network that reads one long answer as it comes.

    python stream.py BODY

Prints a line when the answer has begun, and when it has ended, how many events there were and what the last one was.
"""

from __future__ import annotations

import http.client
import json
import sys


def main(body: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=120)
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    events = [response.readline()]
    sys.stdout.write(f"{response.status}\n")
    sys.stdout.flush()
    events += [line for line in response if line.strip()]
    sys.stdout.write(json.dumps({"events": len(events), "last": events[-1].decode().strip()}))


if __name__ == "__main__":
    main(sys.argv[1])
