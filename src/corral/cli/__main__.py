"""`python -m corral.cli`: what the supervisor runs, so that it needs no script in the path."""

import sys

from corral.cli.main import main

sys.exit(main())
