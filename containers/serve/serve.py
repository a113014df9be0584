"""The serve container's program: `pdk.serving` with its command line."""

from pdk.serving.__main__ import main

if __name__ == "__main__":
    main()
