"""`swarmrt`, also as `python -m swarmrt`."""

from swarmrt.cli.signals import leave_quietly_on_signals


def main() -> None:
    leave_quietly_on_signals()  # the imports below take a second or two
    from swarmrt.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
