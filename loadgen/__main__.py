"""Run the command line with ``python -m loadgen``."""

import sys

from loadgen.cli import main

sys.exit(main())
