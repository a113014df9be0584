"""The deploy container's program: `pdk.deploy` with the command line of the guide."""

from pdk.deploy.run import main
from pdk.timing import leave

if __name__ == "__main__":
    leave(main())
