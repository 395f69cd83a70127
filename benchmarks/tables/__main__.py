"""Write every page's tables from the records; no figure is typed by hand.

python -m benchmarks.tables           # write what is out of date (make docs)
python -m benchmarks.tables --check   # exit code 1 where something is
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.tables import card, engine, evaluate, pictures, readme, results, serve, warmup
from benchmarks.tables.writer import write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is out of date")
    check = parser.parse_args().check
    modules = (evaluate, warmup, engine, serve, results, card, readme, pictures)
    stale = sum(write(module.PAGES, check=check) for module in modules)
    sys.exit(int(check and stale > 0))
