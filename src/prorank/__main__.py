"""``python -m prorank COMMAND``: for launchers that start a module, such as ``accelerate launch -m prorank train``."""

import sys

from prorank.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
