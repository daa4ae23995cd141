"""What the verbs have in common that start a profile and wait until it answers."""

from __future__ import annotations

import argparse

HINT = "look at `orch logs`, or ask `orch explain`"
"""After a start that failed and gave no hint of its own."""


def add_start_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a start."""
    parser.add_argument("--engine", metavar="ID", help="another engine than the profile's own")
    parser.add_argument(
        "-d", "--detach", action="store_true", help="return at once instead of waiting until it answers"
    )
    parser.add_argument(
        "--unverified",
        action="store_true",
        help="start what `orch verify` has found to be computed wrongly",
    )
    parser.add_argument("--force", action="store_true", help="try what the plan says cannot fit (`orch plan`)")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="give up waiting after S seconds")
