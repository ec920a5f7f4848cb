"""`python -m swarmrt` is the command `swarmrt`."""

from swarmrt.cli import main

if __name__ == "__main__":
    main()
