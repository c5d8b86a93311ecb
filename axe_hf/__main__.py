"""`python -m axe_hf` is `axe-hf`, also under a launcher: `accelerate launch -m axe_hf ...`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
