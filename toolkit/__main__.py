"""``python -m toolkit``: the console script where it is not on the path."""

import sys

from toolkit.cli import main

sys.exit(main())
