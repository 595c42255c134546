"""`python -m cylstm` is the command `cylstm`."""

import sys

from cylstm.cli import main

sys.exit(main())
