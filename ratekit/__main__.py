"""`python -m ratekit`: the same as the command `ratekit`."""

from ratekit.cli import main

# The demo's server runs in a child process, which imports this file again.
if __name__ == "__main__":
    main()
