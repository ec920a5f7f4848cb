"""The command `swarmrt`, also as `python -m swarmrt`."""

import os
import sys


def main() -> None:
    forget_start_folder()
    from swarmrt.cli.process.signals import leave_quietly_on_signals
    from swarmrt.cli.process.unheard import go_on_unheard

    go_on_unheard()
    leave_quietly_on_signals()  # the imports below take a second or two
    if sys.argv[1:2] == ["fork-server"]:
        from swarmrt.cli.process.forked import fork_processes

        fork_processes(int(sys.argv[2]))
    from swarmrt.cli.app import main as run

    run()


def forget_start_folder() -> None:
    """Drop what nobody has named from the path, so that none of its files passes for a module: the
    working folder, or that of the script, which the interpreter itself has put first, and the
    working folder as the nothing between two colons of PYTHONPATH.

    What the interpreter has imported before is beyond us: only `python -P` is safe from that.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return  # a folder that was removed has no files
    start = {"", here, os.path.dirname(os.path.realpath(sys.argv[0]))}
    if not sys.flags.safe_path and sys.path[:1] and sys.path[0] in start:
        del sys.path[0]
    variable = os.environ.get("PYTHONPATH", "")
    named = variable.split(os.pathsep) if variable else []
    if "" in named:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, named))  # as for our processes
        if here not in named and here in sys.path:
            sys.path.remove(here)


if __name__ == "__main__":
    main()
