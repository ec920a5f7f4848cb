"""A reduce of decoupled momenta by hand: its bytes, its bits, and what anybody may send."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.ids import PeerId
from swarmrt.messages import Part
from swarmrt.model.decoupled import spectrum_of
from swarmrt.runtime.limits.quotas import payloads_of
from swarmrt.runtime.peer.parts import Parts, part_range
from swarmrt.runtime.peer.payloads import payload_of
from swarmrt.scheduler.events import PartUnfit
from swarmrt.scheduler.instructions import CombineParts, KeepPart, SumPart

SIZE = 100_003
DEMO: dict[str, Any] = {
    "optimizer": {"kind": "sgd", "clip_norm": 0.0},
    "averaging": {"strategy": "demo"},
}


def run(**averaging: Any) -> RunConfig:
    return parse_config({**DEMO, "averaging": {"strategy": "demo", **averaging}}, "test")


def gradients(number: int, size: int = SIZE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(size, generator=generator) for _ in range(number)]


def given(config: RunConfig, gradient: Tensor) -> Tensor:
    """Return what a replica gives a round, as its stage makes it."""
    if not config.averaging.is_decoupled:
        return gradient
    spectrum = spectrum_of(config)
    momentum = torch.zeros(spectrum.rows(len(gradient)), spectrum.chunk)
    momentum.view(-1)[: len(gradient)] = gradient
    return spectrum.take_peaks(momentum)


class Members:
    """The members of a round, and the bytes that each has sent."""

    def __init__(self, config: RunConfig, number: int, size: int) -> None:
        self.names = tuple(PeerId(f"member {index}") for index in range(number))
        payload = payload_of(config)
        self.parts = [Parts(name, payload, size, lambda _: size) for name in self.names]
        self.unit, self.sent_bytes = payload.unit, [0] * number

    def reduce(self, gives: list[Tensor], parts: int) -> list[Tensor]:
        """Return what each holds in the end."""
        number = len(self.names)
        means = [own.mean(0, 1, parts) for own in self.parts]
        for index in range(parts):
            place = index % number
            owner, what = self.parts[place], SumPart(0, 1, index, parts, self.names, 8)
            pieces = [give[part_range(len(give), index, parts)] for give in gives]
            for other, piece in enumerate(pieces):
                if other != place:
                    encoded = self.parts[other].encode(piece)
                    self.sent_bytes[other] += encoded.nbytes
                    assert owner.fits([encoded])
                    owner.keep(KeepPart(self.names[other], 0, 1, index, False), encoded)
            slices = owner.take_slices(what)
            assert not isinstance(slices, PartUnfit), slices
            owner.sum_up(what, means[place], slices, pieces[place])
            for other, mean in enumerate(means):
                if other != place:
                    summed = owner.sum_of(0, 1, index)
                    self.sent_bytes[place] += summed.nbytes
                    assert self.parts[other].fits([summed])
                    self.parts[other].place(mean, index, summed)
        combine = CombineParts(0, 1, parts)
        pairs = zip(self.parts, means, strict=True)
        outcomes = [own.combine(combine, mean, {}) for own, mean in pairs]
        assert len({(outcome.digest, str(outcome.squared_norm)) for outcome in outcomes}) == 1
        return [mean.values for mean in means]


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_bytes_are_forty_times_fewer_than_those_of_gradients(number: int, precision: str) -> None:
    """The bytes are those of all members, both ways: slices to owners, and sums back."""
    plain, few = RunConfig(), run(precision=precision)
    sent = []
    for config in (plain, few):
        members = Members(config, number, SIZE)
        members.reduce([given(config, each) for each in gradients(number)], 2 * number)
        sent.append(sum(members.sent_bytes))
    assert sent[0] == pytest.approx(2 * (number - 1) * 4 * SIZE, rel=0.01)
    assert sent[0] >= 40 * sent[1], sent[0] / sent[1]


@pytest.mark.parametrize("parts", [4, 10, 60])
@pytest.mark.parametrize("size", [1, 255, 256, 1000, SIZE])
def test_all_members_hold_the_same_signs_however_it_is_cut(size: int, parts: int) -> None:
    config, whole = run(), None
    gives = [given(config, each) for each in gradients(2, size)]
    for cut in (2, parts):
        found = Members(config, 2, size).reduce(gives, cut)
        whole = found[0] if whole is None else whole
        assert all(torch.equal(values, whole) for values in found)
    assert whole is not None and set(whole.tolist()) <= {-1.0, 1.0} and len(whole) == size


def test_all_frequencies_give_the_signs_of_the_sum() -> None:
    config, pair = run(top_k=64, chunk=64, precision="model"), gradients(2, 1000)
    found = Members(config, 2, 1000).reduce([given(config, each) for each in pair], 4)
    total = pair[0] + pair[1]
    known = total.abs() > 1e-4
    assert torch.equal(found[0][known], total.sign()[known])


def test_whose_momentum_is_not_finite_is_told(caplog: pytest.LogCaptureFixture) -> None:
    config, pair = run(), gradients(2)
    pair[1][7] = math.nan
    found = Members(config, 2, SIZE).reduce([given(config, each) for each in pair], 2)
    assert not found[0].isfinite().all()
    assert caplog.messages == ["the gradient of step 1 by member 1 is not finite"]


def test_parts_of_others_are_refused_before_they_have_memory() -> None:
    """A round says how long a part is, and how many frequencies are in it."""
    config = run(chunk=64, top_k=2)
    members = Members(config, 2, 1000)
    owner, what = members.parts[0], SumPart(0, 1, 0, 2, members.names, 8)
    piece = given(config, gradients(1, 1000)[0])[: 1000 // 64 // 2 + 1].reshape(-1)
    assert not owner.fits([piece.view(-1, 8)]) and not owner.fits([piece.float()])
    assert not owner.fits([torch.zeros(1 << 20, dtype=torch.uint8)])
    strange = piece.clone()
    strange[-1] = 64
    for bad, reason in ((piece[:-1], "values where"), (strange, "frequencies that there are not")):
        owner.keep(KeepPart(members.names[1], 0, 1, 0, False), bad)
        unfit = owner.take_slices(what)
        assert isinstance(unfit, PartUnfit) and reason in unfit.reason
        assert unfit.sender == members.names[1]
    assert owner.unfit(CombineParts(0, 1, 2), 0, members.names[1], piece) is not None


@pytest.mark.parametrize("top_k", [1, 6, 512, 1024])
def test_longest_part_fits_into_a_message(top_k: int) -> None:
    config, size = run(chunk=1024, top_k=top_k, precision="model"), (4 << 20) + 77
    payload, parts = payload_of(config), 2 * math.ceil(4 * size / 2 / (4 << 20))
    where = [part_range(size, index, parts, payload.unit) for index in range(parts)]
    longest = max(part.stop - part.start for part in where)
    most = max(payload.slice_length(longest), payload.sum_length(longest))
    assert most <= payloads_of(config)[Part]
