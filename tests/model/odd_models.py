"""Models that are unlike the usual chain of blocks, as builders: a sequence of 6 tokens of 256."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCAB, WIDTH = 256, 16
Layers = tuple[Any, Callable[[Tensor, Tensor], Tensor]]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")


class Apply(nn.Module):
    """A layer that is a function of its input and, if it wants one, of a linear layer."""

    def __init__(self, function: Callable[..., Tensor], trained: bool = True) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH) if trained else None
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x, self.inner) if self.inner is not None else self._function(x)


def chain(*middle: Any) -> Layers:
    """Return a model of an embedding, these layers, and a head."""
    return [nn.Embedding(VOCAB, WIDTH), *middle, nn.Linear(WIDTH, VOCAB)], loss


# ---------------------------------------------------------------------- these behave as alone


def sequential() -> Layers:
    layers, its_loss = chain(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    return nn.Sequential(*layers), its_loss


def in_place() -> Layers:
    return chain(nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH), nn.SiLU(inplace=True))


def batch_second() -> Layers:
    """PyTorch's own encoder in its default layout: activations are [T, B, C]."""
    encoder = [nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.1) for _ in range(2)]
    back = Apply(lambda x, inner: inner(x.transpose(0, 1)))
    return chain(Apply(lambda x: x.transpose(0, 1), trained=False), *encoder, back)


def flattened() -> Layers:
    """Activations of two dimensions, and of four."""
    flat = Apply(lambda x, inner: inner(x.flatten(0, 1)))
    heads = Apply(lambda x, inner: inner(x).unflatten(0, (-1, 6)).unflatten(2, (4, 4)))
    back = Apply(lambda x, inner: inner(x.flatten(2)))
    return chain(flat, heads, back)


def detached() -> Layers:
    """No gradient comes to what is before the third layer."""
    return chain(nn.Linear(WIDTH, WIDTH), Apply(lambda x, inner: inner(x.detach())))


class Scaled(nn.Module):
    """A layer with a buffer of whole numbers, one of float64, and one that is not saved."""

    steps: Tensor
    fine: Tensor
    rough: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("steps", torch.arange(WIDTH))
        self.register_buffer("fine", torch.full((1,), 1 / 3, dtype=torch.float64))
        self.register_buffer("rough", torch.linspace(0, 1, WIDTH), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        assert self.fine.dtype == torch.float64, "its dtype has a reason"
        return self.inner(x * float(self.fine) + self.rough * self.steps.to(x.dtype))  # type: ignore[no-any-return]


def buffers() -> Layers:
    return chain(Scaled(), Scaled())


def frozen() -> Layers:
    """Four layers with nothing to train between two that have."""
    blocks = [nn.Linear(WIDTH, WIDTH).requires_grad_(False) for _ in range(4)]
    return chain(*blocks, nn.Linear(WIDTH, WIDTH))


def drops() -> Layers:
    return chain(nn.Dropout(0.3), nn.Linear(WIDTH, WIDTH), nn.Dropout(0.3))


def functions() -> Layers:
    layers = [
        lambda: nn.Embedding(VOCAB, WIDTH),
        lambda: nn.Linear(WIDTH, WIDTH),
        lambda: nn.Linear(WIDTH, VOCAB),
    ]
    return layers, loss


def numpy_weights() -> Layers:
    """First weights that are drawn by numpy and by Python."""

    def drawn() -> nn.Module:
        linear = nn.Linear(WIDTH, WIDTH)
        values = np.random.standard_normal((WIDTH, WIDTH)) * random.random()
        linear.weight.data = torch.from_numpy(values).to(linear.weight.dtype)
        return linear

    return [lambda: nn.Embedding(VOCAB, WIDTH), drawn, lambda: nn.Linear(WIDTH, VOCAB)], loss


def rates() -> Layers:
    """Rates are read off a tensor while the layers are built."""
    shares = [share.item() for share in torch.linspace(0, 0.1, 2)]
    return chain(*[layer for p in shares for layer in (nn.Linear(WIDTH, WIDTH), nn.Dropout(p))])


def shared_without_parameters() -> Layers:
    """Return layers of which an activation, a dropout and a frozen one are used twice."""
    turn, drop = nn.GELU(), nn.Dropout(0.2)
    frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    first, second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    return chain(first, frozen, turn, drop, second, frozen, turn, drop)


def alike() -> Layers:
    """Layers that look alike and give other dtypes."""
    there = Apply(lambda x, inner: inner(x).double())
    return chain(there, Apply(lambda x, inner: inner(x.float())))


GOOD = (
    sequential, in_place, batch_second, flattened, detached, buffers, frozen, drops, functions,
    numpy_weights, rates, shared_without_parameters, alike,
)  # fmt: skip


# ---------------------------------------------------------------------- these cannot be cut


class TiedHead(nn.Module):
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.embedding.weight)


def tied() -> Layers:
    embedding = nn.Embedding(VOCAB, WIDTH)
    first, last = (lambda: embedding), (lambda: TiedHead(embedding))
    return [first, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), last], loss


def tied_unseen() -> Layers:
    """The head has the embedding's weights without its module."""
    embedding = nn.Embedding(VOCAB, WIDTH)
    head = Apply(lambda x: F.linear(x, embedding.weight), trained=False)
    return [embedding, nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), head], loss


def side_channel() -> Layers:
    """The third layer adds what the first one has left for it."""
    left: list[Tensor] = []

    def leave(x: Tensor, inner: nn.Module) -> Tensor:
        left[:] = [x]
        return inner(x)  # type: ignore[no-any-return]

    def add(x: Tensor, inner: nn.Module) -> Tensor:
        return inner(x) + (left[0] if left else 0)  # type: ignore[no-any-return]

    return chain(Apply(leave), nn.Linear(WIDTH, WIDTH), Apply(add))


def lazy() -> Layers:
    return chain(nn.LazyLinear(WIDTH))


class MadeLate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "inner"):
            self.inner = nn.Linear(WIDTH, WIDTH)
        return self.inner(x)  # type: ignore[no-any-return]


def made_late() -> Layers:
    return chain(MadeLate(), nn.Linear(WIDTH, WIDTH))


def small_vocabulary() -> Layers:
    return [nn.Embedding(130, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, VOCAB)], loss


def python_draws() -> Layers:
    return chain(Apply(lambda x, inner: inner(x) * random.random()), nn.Linear(WIDTH, WIDTH))


def numpy_draws() -> Layers:
    return chain(nn.Linear(WIDTH, WIDTH), Apply(lambda x, inner: inner(x) + np.random.rand()))


def renormalised() -> Layers:
    layers, its_loss = chain(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    layers[0] = nn.Embedding(VOCAB, WIDTH, max_norm=1.0)
    return layers, its_loss


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(WIDTH, WIDTH), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x) / self.calls  # type: ignore[no-any-return]


def counts() -> Layers:
    return chain(Counts(), nn.Linear(WIDTH, WIDTH))


def another_each_time() -> Layers:
    """Weights of the operating system's choice."""
    linear = nn.Linear(WIDTH, WIDTH)
    with torch.no_grad():
        linear.weight.mul_(1 + random.SystemRandom().random())
    return chain(linear, nn.Linear(WIDTH, WIDTH))


class Hides(nn.Module):
    """Modules in a list, which torch does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.more = nn.Linear(WIDTH, WIDTH), [nn.Linear(WIDTH, WIDTH)]

    def forward(self, x: Tensor) -> Tensor:
        return self.more[0](self.inner(x))  # type: ignore[no-any-return]


def hides() -> Layers:
    return chain(Hides(), nn.Linear(WIDTH, WIDTH))


class LossOfItsOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, output: Tensor, targets: Tensor) -> Tensor:
        return loss(self.head(output), targets)


def loss_with_weights() -> Layers:
    layers, _ = chain(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    return layers[:-1], LossOfItsOwn()


def running_mean() -> Layers:
    norm = nn.BatchNorm1d(6)
    return chain(nn.Linear(WIDTH, WIDTH), norm)


def nothing_to_learn() -> Layers:
    layers, its_loss = chain(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))
    return [*layers, Apply(lambda x: x.detach() + 0, trained=False)], its_loss


BAD = {
    tied: r"layers 0 and 3 share a parameter",
    tied_unseen: r"gradient of layers\.0\.weight differs",
    side_channel: r"output of layer 3 differs|gradient of .* differs",
    lazy: r"layer 1 makes its weight on first use",
    made_late: r"layers\.1\.inner\.\w+ is made on first use",
    small_vocabulary: r"layer 0 cannot compute .* largest token is 255: IndexError",
    python_draws: r"layer 1 draws from Python's or numpy's",
    numpy_draws: r"layer 2 draws from Python's or numpy's",
    renormalised: r"layer 0 changes layers\.0\.weight in its forward",
    counts: r"layer 1 gives another output|output of layer 1 differs|loss differs",
    another_each_time: r"layers\.1\.weight has other values when only its stage is built",
    hides: r"depends on a parameter of \[16, 16\] that is in no layer",
    loss_with_weights: r"depends on a parameter of \[256, 16\] that is in no layer",
    running_mean: r"layer 2 changes layers\.2\.num_batches_tracked in its forward.*LayerNorm",
    nothing_to_learn: r"the loss depends on no parameter",
}


# ---------------------------------------------------------------------- these need a device


def on_cuda() -> Layers:
    return chain(Apply(lambda x, inner: inner(x.cuda())))


class Backward(torch.autograd.Function):
    """The identity, with a backward that is another's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.its_backward = backward
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.its_backward(gradient), None


def backward_on_cuda() -> Layers:
    return chain(Apply(lambda x, inner: Backward.apply(inner(x), lambda g: g.cuda())))  # type: ignore[no-untyped-call]


def no_way_back() -> Layers:
    """An error that is the model's own, wherever it is computed."""

    def fail(gradient: Tensor) -> Tensor:
        raise ValueError("no way")

    back = Apply(lambda x, inner: Backward.apply(inner(x), fail))  # type: ignore[no-untyped-call]
    return chain(back, nn.Linear(WIDTH, WIDTH))
