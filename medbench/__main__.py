"""Lets `python -m medbench` run the command line."""

import sys

from medbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
