"""Rates of links, as they are written on the command line."""

from __future__ import annotations

import pytest

from swarmrt.cli.options.rates import parse_link_rate
from swarmrt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "bytes_per_s"),
    [
        ("50mbit", 6.25e6),
        ("800kbit", 1e5),
        ("1.5Gbit", 187.5e6),
        ("15", 1.875e6),
        ("0.1", 12_500.0),
        (None, None),
    ],
)
def test_rate_is_of_all_bytes_a_second(text: str | None, bytes_per_s: float | None) -> None:
    assert parse_link_rate(text) == bytes_per_s


@pytest.mark.parametrize(
    "text", ["", "fast", "50MB", "0mbit", "99kbit", "-1mbit", "1e3mbit", "nan"]
)
def test_other_rates_are_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="bits a second like 800kbit, 50mbit or 1gbit"):
        parse_link_rate(text)
