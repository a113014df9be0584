"""The deploy container's program: `pdk.deploy` with the command line of the guide."""

import sys

from pdk.deploy.run import main

if __name__ == "__main__":
    sys.exit(main())
