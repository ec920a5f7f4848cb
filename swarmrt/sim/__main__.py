"""`python -m swarmrt.sim`: soak."""

import sys

from swarmrt.sim.soak import main

if __name__ == "__main__":
    sys.exit(main())
