"""The Determined server with light trials instead of warm ones: ``python bench/light_server.py STATE``."""

import sys
from pathlib import Path


def main():
    """Serve."""
    sys.path[0] = str(Path(__file__).parent.parent / "src")  # not this folder, in which a file has the name of the SDK
    from pdk.local.determined.__main__ import start
    from pdk.local.determined.runtime import warm

    warm.COMMAND = (sys.executable, "-S", str(Path(__file__).with_name("light_trial.py")))
    start(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
