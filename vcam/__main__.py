"""`python -m vcam` is `vcam`."""

import sys

from vcam.cli.main import main

if __name__ == "__main__":  # the engine's child process imports this file again
    sys.exit(main())
