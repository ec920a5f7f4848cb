"""The native kernels: one shared library, built where there is a C compiler and left out elsewhere.

It has neither Python's nor torch's ABI in it; `kernels/compiled.py` loads it by its path.
Everything else about the package is in setup.cfg.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "swarmrt.kernels._native",
            sources=[f"kernels/native/{name}.c" for name in ("about", "bf16", "digest", "int8")],
            depends=["kernels/native/simd.h"],
            extra_compile_args=[
                "-O3",
                "-std=c11",
                "-fvisibility=hidden",
                "-ffp-contract=off",  # rounds as torch does: no fused multiply-add
                "-fno-math-errno",
                "-fno-trapping-math",  # lets conditionals be vectorised; no result changes
            ],
            optional=True,
        )
    ]
)
