"""`python -m edgemtl` is the command `edgemtl`."""

import sys

from edgemtl.cli import main

sys.exit(main())
