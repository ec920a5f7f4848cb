"""The measurement of the codecs: what it tells. (How fast they are is not a test's business.)"""

from __future__ import annotations

import json

import pytest

from swarmrt.kernels.dispatch import describe
from tests.processes import swarmrt

RATIOS = [
    "int8_encode_over_memcpy",
    "int8_encode_feedback_over_memcpy",
    "int8_decode_over_memcpy",
    "int8_accumulate_over_memcpy",
    "bf16_encode_over_memcpy",
    "bf16_encode_feedback_over_memcpy",
    "bf16_decode_over_memcpy",
    "bf16_accumulate_over_memcpy",
    "digest_over_memcpy",
    "digest_torch_over_memcpy",
    "int8_over_torch",
    "int8_over_hivemind",
    "int8_encode_over_hivemind_encode",
    "digest_over_digest_torch",
    "digest_over_sha256",
]


@pytest.mark.parametrize("as_json", [True, False])
def test_bench_codec_tells_ratios_and_what_serves(as_json: bool) -> None:
    options = ["--json"] if as_json else []
    done = swarmrt("bench", "codec", "--mebibytes", 1, "--rounds", 2, *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    if as_json:
        told = json.loads(done.stdout)
        assert told.pop("implementation") == describe()["cpu"]
        assert told.pop("mebibytes") == 1
        assert [name for name in told if "_over_" in name] == RATIOS
        assert told["memcpy_bytes_per_s"] > 0
        assert all(value > 0 for value in told.values())
    else:
        first, *lines = done.stdout.splitlines()
        assert first == f"codecs: {describe()['cpu']}"
        assert [line.split()[0] for line in lines if not line.endswith("GB/s")] == RATIOS
