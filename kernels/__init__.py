"""Arithmetic: the plain meaning of each kernel. Torch, no network.

The name to import is `swarmrt.kernels`. Under the bare name, which belongs to another package,
there is nothing here: transformers imports that name to see whether the other package is
installed, also when the first folder on its path happens to be this project's.
"""

if not __name__.startswith("swarmrt."):
    __path__ = []

    def __getattr__(name: str) -> object:
        raise AttributeError(f"import swarmrt.kernels, not {__name__}: it has no {name!r}")
