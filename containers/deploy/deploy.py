"""The deploy container's program: `pdk.flow.deploy` with the command line of the guide."""

from pdk.flow.deploy.run import main
from pdk.timing import leave

if __name__ == "__main__":
    leave(main())
