"""A reduce by hand: what replicas get of it, encoded and not."""

from __future__ import annotations

import math

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.kernels.codecs import CODECS, Precision
from swarmrt.runtime.peer.parts import Parts, part_range
from swarmrt.runtime.peer.payloads import payload_of
from swarmrt.scheduler.events import GradientCombined, PartUnfit
from swarmrt.scheduler.instructions import CombineParts, DropPart, KeepPart, SumPart
from swarmrt.sim.peer.reducing import Reducing
from swarmrt.sim.swarm.world import World

SIZE, TOKENS = 1000, 8
NAMES = tuple(map(PeerId, ("a", "b", "c")))
ERRORS: dict[Precision, float] = {"model": 0.0, "bfloat16": 0.01, "int8": 0.03}  # of the largest


def parts_of(me: PeerId, precision: Precision, numel: int = SIZE) -> Parts:
    """Return those of a peer whose rounds combine so many values."""
    config = parse_config({"precision": {"gradients": precision}}, "test")
    return Parts(me, payload_of(config), numel, lambda _: numel)


def reduce(gradients: list[torch.Tensor], precision: Precision) -> tuple[list[torch.Tensor], float]:
    """Each replica's mean gradient, and its squared norm."""
    peers = [parts_of(name, precision) for name in NAMES[: len(gradients)]]
    names, number = NAMES[: len(gradients)], len(gradients)
    for index, owner in enumerate(peers):
        where = part_range(SIZE, index, number)
        what = SumPart(0, 1, index, number, names, TOKENS)
        for name, peer, gradient in zip(names, peers, gradients, strict=True):
            if peer is not owner:
                piece = peer.encode(gradient[where])
                assert owner.fits([piece])
                owner.keep(KeepPart(name, 0, 1, index, False), piece)
        mean = owner.mean(0, 1, number)
        slices = owner.take_slices(what)
        assert not isinstance(slices, PartUnfit)
        owner.sum_up(what, mean, slices, gradients[index][where])
        for peer in peers:
            if peer is not owner:
                summed = owner.sum_of(0, 1, index)
                assert peer.fits([summed])
                if peer is peers[-1]:  # it has not heard of the round yet
                    peer.keep(KeepPart(names[index], 0, 1, index, True), summed)
                else:
                    peer.place(peer.mean(0, 1, number), index, summed)
    means, norms, digests = [], set(), set()
    for peer in peers:
        combine = CombineParts(0, 1, number)
        mean = peer.mean(0, 1, number)
        early = peer.take_early_sums(combine)
        assert not isinstance(early, PartUnfit)
        outcome = peer.combine(combine, mean, early)
        norms.add(outcome.squared_norm)
        digests.add(outcome.digest)
        means.append(peer.take_reduced(0, 1).values)
    assert len(digests) == 1
    return means, norms.pop()


@pytest.mark.parametrize("precision", list(CODECS))
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_all_replicas_get_the_same_bits(precision: Precision, replicas: int) -> None:
    generator = torch.Generator().manual_seed(replicas)
    gradients = [torch.randn(SIZE, generator=generator) for _ in range(replicas)]
    before = [gradient.clone() for gradient in gradients]
    means, squared_norm = reduce(gradients, precision)
    assert all(torch.equal(mean, means[0]) for mean in means)
    assert all(map(torch.equal, gradients, before)), "the round may have to be repeated"
    exact = torch.stack(gradients).sum(0) / TOKENS
    worst = float((means[0] - exact).abs().max() / exact.abs().max())
    assert worst <= max(ERRORS[precision], 1e-6)
    assert squared_norm == pytest.approx(float(means[0].double().square().sum()))
    assert all(map(torch.equal, means, reduce(gradients, precision)[0])), "a repeated round"


@pytest.mark.parametrize("precision", list(CODECS))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_averaged_away(
    precision: Precision, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    """And the part's owner says whose it was."""
    gradients = [torch.ones(SIZE), torch.ones(SIZE)]
    gradients[1][7] = value
    _, squared_norm = reduce(gradients, precision)
    assert not math.isfinite(squared_norm)
    assert caplog.messages == ["the gradient of step 1 by b is not finite"]


@pytest.mark.parametrize("precision", list(CODECS))
def test_an_update_that_is_not_finite_is_refused(
    precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole swarm of cores; one replica of stage 1 has a NaN in its gradient of step 3."""
    gradients = [torch.ones(SIZE), torch.ones(SIZE)]
    gradients[1][SIZE // 3] = math.nan
    _, squared_norm = reduce(gradients, precision)
    combine = Reducing.combine
    stage_of = {PeerId(name): int(name[1]) for name in ("s0p0", "s1p0", "s1p1")}

    def combine_nan(self: Reducing, step: int, number: int, parts: int) -> None:
        if (stage_of[self._process.me], step) != (1, 2):
            return combine(self, step, number, parts)
        self._process.feed(GradientCombined(step, number, "the same", squared_norm))

    monkeypatch.setattr(Reducing, "combine", combine_nan)
    world = World([1, 2], seed=1)
    with pytest.raises(RunError) as refused:
        world.run()
    told = str(refused.value)
    assert told.startswith("the gradient of step 3 is not finite at stage 1, whoever computes ")
    assert told.endswith(": s1p0, s1p1"), "both have been tried"
    assert [len(peer.history) for peer in world.peers.values()] == [2, 2, 2]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_encoded_parts_are_smaller_and_others_are_refused(precision: Precision) -> None:
    parts, gradient = parts_of(NAMES[0], precision), torch.ones(SIZE)
    encoded = parts.encode(gradient)
    assert encoded.nbytes <= gradient.nbytes * {"bfloat16": 0.5, "int8": 0.26}[precision]
    assert parts.fits([encoded])
    assert not parts.fits([gradient])
    assert not parts.fits([encoded, encoded])
    assert not parts.fits([torch.zeros(4 * SIZE + 1, dtype=torch.uint8)])
    assert not parts_of(NAMES[0], "model").fits([encoded])


@pytest.mark.parametrize("precision", list(CODECS))
@pytest.mark.parametrize("summed", [True, False])
def test_a_part_of_another_size_is_refused_with_whose_it_is(
    precision: Precision, summed: bool
) -> None:
    """Its size is known once its round is: then it is looked at, before anything is made of it."""
    me, other = NAMES[:2]
    right = part_range(SIZE, 0, 3).stop
    for size in (0, 1, right - 1, right + 1, SIZE):
        parts = parts_of(me, precision)
        piece = parts.encode(torch.ones(size))
        parts.keep(KeepPart(other, 0, 1, 0, summed), piece)
        unfit = (
            parts.take_early_sums(CombineParts(0, 1, 3))
            if summed
            else parts.take_slices(SumPart(0, 1, 0, 3, (me, other), TOKENS))
        )
        assert isinstance(unfit, PartUnfit) and unfit.sender == other
    assert parts.unfit(CombineParts(0, 1, 3), 0, other, parts.encode(torch.ones(right))) is None


def test_an_early_sum_of_somebody_else_takes_nobodys_place() -> None:
    parts = parts_of(NAMES[0], "model", 8)
    for sender, value in ((NAMES[1], 1.0), (NAMES[2], 9.0)):
        parts.keep(KeepPart(sender, 0, 1, 0, True), torch.full((8,), value))
    parts.drop_part(DropPart(NAMES[2], 0, 1, 0, True))
    early = parts.take_early_sums(CombineParts(0, 1, 1))
    assert not isinstance(early, PartUnfit) and early[0].tolist() == [1.0] * 8


def test_a_round_that_is_dropped_leaves_nothing() -> None:
    parts, combine = (
        parts_of(NAMES[0], "model"),
        [CombineParts(0, number, 1) for number in (1, 2)],
    )
    for number in (1, 2):
        parts.keep(KeepPart(NAMES[1], 0, number, 0, True), torch.ones(SIZE))
        parts.mean(0, number, 1)
    parts.drop(0, 1)
    assert not parts.take_early_sums(combine[0]) and parts.take_early_sums(combine[1])
    with pytest.raises(KeyError):
        parts.take_reduced(0, 1)
    assert len(parts.take_reduced(0, 2).values) == SIZE


def test_rounds_of_a_part_of_the_parameters_are_as_long_as_their_step_says() -> None:
    """Nothing, too, where a strategy leaves all as it is."""
    lengths = {4: 7, 5: 0}
    parts = Parts(NAMES[0], payload_of(RunConfig()), SIZE, lambda step: lengths[step])
    for step, length in lengths.items():
        mean = parts.mean(step, step, 2)
        assert len(mean.values) == length
        halves = [torch.full((length // 2 + index * (length % 2),), 6.0) for index in (0, 1)]
        for index, mine in enumerate(halves):
            what = SumPart(step, step, index, 2, (NAMES[0],), 3)
            assert parts.unfit(what, index, NAMES[1], mine) is None
            parts.sum_up(what, mean, [None], mine)
        combined = parts.combine(CombineParts(step, step, 2), mean, {})
        assert combined.squared_norm == 4.0 * length and mean.values.tolist() == [2.0] * length


def test_memory_is_used_again_unless_links_may_hold_on_to_it() -> None:
    parts = parts_of(NAMES[0], "model")
    first = parts.mean(0, 1, 1)
    parts.give_back(parts.take_reduced(0, 1))
    second = parts.mean(1, 2, 1)
    assert second.values is first.values
    parts.sum_of(1, 2, 0)
    parts.give_back(parts.take_reduced(1, 2))
    assert parts.mean(2, 3, 1).values is not first.values


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_sums_that_a_newcomer_keeps_stay_encoded_until_it_needs_them(precision: Precision) -> None:
    gradient = torch.linspace(-1.0, 1.0, SIZE)
    parts = 4
    at_once, later = (parts_of(NAMES[0], precision) for _ in range(2))
    mean = at_once.mean(7, 1, parts)
    kept_bytes = 0
    for index in range(parts):
        summed = at_once.encode(gradient[part_range(SIZE, index, parts)])
        at_once.place(mean, index, summed)
        later.keep(KeepPart(NAMES[1], 7, 1, index, True, parts), summed)
        kept_bytes += summed.nbytes
    assert not later._means and kept_bytes <= gradient.nbytes * 0.51
    what = CombineParts(7, 1, parts)
    early = later.take_early_sums(what)
    assert isinstance(early, dict)
    its_mean = later.mean(7, 1, parts)
    assert later.combine(what, its_mean, early) == at_once.combine(what, mean, {})
    assert torch.equal(its_mean.values, mean.values)
