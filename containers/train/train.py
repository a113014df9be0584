"""The train container's program: `pdk.flow.train` with the command line of the guide."""

import sys

from pdk.flow.train.run import main

if __name__ == "__main__":
    sys.exit(main())
