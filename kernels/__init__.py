"""Arithmetic: the plain meaning of each kernel. Torch, no network."""

if not __name__.startswith("swarmrt."):
    raise ImportError(
        f"import swarmrt.kernels, not {__name__}: the bare name belongs to another package"
    )
