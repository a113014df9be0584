"""The train container's program: `pdk.train` with the command line of the guide."""

import sys

from pdk.train.run import main

if __name__ == "__main__":
    sys.exit(main())
