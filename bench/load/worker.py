"""The process in which ``Load`` lets its generator run; it answers over its standard input and output.

First comes the plan as one line of JSON, answered by the time of the start on the clock that all processes share. Each
further line asks for a report. The end of the input, which also comes when the other process dies, ends the load.
"""

from __future__ import annotations

import json
import signal
import sys

from bench.load.errors import LoadError
from bench.load.generator import Generator
from bench.load.plan import Plan


def serve() -> None:
    """Run one load.

    Raises:
        LoadError: The load cannot be made or measured.
    """
    generator = Generator(Plan(**json.loads(sys.stdin.readline())))
    generator.start()
    print(json.dumps(generator.started), flush=True)
    try:
        while sys.stdin.readline():
            generator.wait(0)
            print(generator.report().to_json(), flush=True)
    finally:
        generator.stop()
    generator.wait()
    print(generator.report().to_json(), flush=True)


def main() -> int:
    """Run one load; an error of it is one line on stderr and exit code 1."""
    # Ctrl-C goes to every process of a terminal; when the load ends is for the other process to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        serve()
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
