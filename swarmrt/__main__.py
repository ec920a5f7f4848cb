"""The command `swarmrt`, also as `python -m swarmrt`."""

import os
import sys


def main() -> None:
    forget_start_folder()
    from swarmrt.cli.signals import leave_quietly_on_signals
    from swarmrt.cli.unheard import go_on_unheard

    go_on_unheard()
    leave_quietly_on_signals()  # the imports below take a second or two
    if sys.argv[1:2] == ["fork-server"]:
        from swarmrt.cli.forked import fork_processes

        fork_processes(int(sys.argv[2]))
    from swarmrt.cli.app import main as run

    run()


def forget_start_folder() -> None:
    """Drop what the interpreter itself has put first on the path: the working folder, or that of
    the script. Nobody has named it, so none of its files shall pass for a module."""
    if sys.flags.safe_path or not sys.path:
        return
    try:
        start = {"", os.getcwd(), os.path.dirname(os.path.realpath(sys.argv[0]))}
    except FileNotFoundError:
        return  # a folder that was removed has no files
    if sys.path[0] in start:
        del sys.path[0]


if __name__ == "__main__":
    main()
