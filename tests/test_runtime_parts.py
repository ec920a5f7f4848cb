"""A reduce by hand: what replicas get of it, encoded and not."""

from __future__ import annotations

import pytest
import torch

from swarmrt.ids import PeerId
from swarmrt.runtime.parts import CODECS, Parts, Precision, part_range
from swarmrt.scheduler.instructions import CombineParts, KeepPart, SumPart

SIZE, TOKENS = 1000, 8
NAMES = tuple(map(PeerId, ("a", "b", "c")))
ERRORS: dict[Precision, float] = {"model": 0.0, "bfloat16": 0.01, "int8": 0.03}  # of the largest


def reduce(gradients: list[torch.Tensor], precision: Precision) -> tuple[list[torch.Tensor], float]:
    """Each replica's mean gradient, and its squared norm."""
    peers = [Parts(name, precision) for name in NAMES[: len(gradients)]]
    names, number = NAMES[: len(gradients)], len(gradients)
    for index, owner in enumerate(peers):
        where = part_range(SIZE, index, number)
        what = SumPart(0, 1, index, number, names, TOKENS)
        for name, peer, gradient in zip(names, peers, gradients, strict=True):
            if peer is not owner:
                piece = peer.encode(gradient[where])
                assert owner.fits([piece], gradient)
                owner.keep(KeepPart(name, 0, 1, index, False), piece)
        owner.sum_up(what, owner.take_slices(what), gradients[index][where])
        for peer in peers:
            if peer is not owner:
                summed = owner.sum_of(0, 1, index)
                assert peer.fits([summed], gradients[0])
                peer.keep(KeepPart(names[index], 0, 1, index, True), summed)
    means, norms, digests = [], set(), set()
    for peer in peers:
        combine = CombineParts(0, 1, number)
        outcome = peer.combine(combine, peer.take_sums(combine), SIZE)
        norms.add(outcome.squared_norm)
        digests.add(outcome.digest)
        means.append(peer.take_reduced(0, 1))
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
def test_what_is_not_finite_is_not_averaged_away(precision: Precision, value: float) -> None:
    """The trainer gives up a step whose norm is not finite."""
    gradients = [torch.ones(SIZE), torch.ones(SIZE)]
    gradients[1][7] = value
    _, squared_norm = reduce(gradients, precision)
    assert not torch.isfinite(torch.tensor(squared_norm))


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_encoded_parts_are_smaller_and_others_are_refused(precision: Precision) -> None:
    parts, gradient = Parts(NAMES[0], precision), torch.ones(SIZE)
    encoded = parts.encode(gradient)
    assert encoded.nbytes <= gradient.nbytes * {"bfloat16": 0.5, "int8": 0.26}[precision]
    assert parts.fits([encoded], gradient)
    assert not parts.fits([gradient], gradient)
    assert not parts.fits([encoded, encoded], gradient)
    assert not parts.fits([torch.zeros(4 * SIZE + 1, dtype=torch.uint8)], gradient)
    assert not Parts(NAMES[0], "model").fits([encoded], gradient)


def test_a_round_that_is_dropped_leaves_nothing() -> None:
    parts = Parts(NAMES[0], "model")
    parts.keep(KeepPart(NAMES[1], 0, 1, 0, True), torch.ones(3))
    parts.keep(KeepPart(NAMES[1], 0, 2, 0, True), torch.zeros(3))
    parts.drop(0, 1)
    with pytest.raises(KeyError):
        parts.sum_of(0, 1, 0)
    assert parts.sum_of(0, 2, 0).tolist() == [0, 0, 0]
