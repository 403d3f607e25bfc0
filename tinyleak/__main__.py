"""`python -m tinyleak` is the command `tinyleak`."""

import sys

from tinyleak.cli import main

sys.exit(main())
