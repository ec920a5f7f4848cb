"""Copies between host and device: on the CPU there are none; on a GPU they keep their order."""

from __future__ import annotations

import pytest
import torch

from swarmrt.runtime.computing.transfers import Computation, Transfers


def test_on_the_cpu_nothing_is_copied_and_nothing_waits() -> None:
    transfers, tensor = Transfers(torch.device("cpu")), torch.ones(3)
    assert transfers.to_device(tensor).take() is tensor
    leaving = transfers.to_host(tensor)
    assert leaving.ready is None and leaving.wait().data_ptr() == tensor.data_ptr()
    assert transfers.beside(tensor.sum).item() == 3.0
    transfers.close()


def test_what_leaves_is_contiguous_and_has_no_graph() -> None:
    transfers, tensor = Transfers(torch.device("cpu")), torch.ones(2, 3, requires_grad=True)
    host = transfers.to_host(tensor.T).wait()
    assert host.is_contiguous() and not host.requires_grad and host.shape == (3, 2)
    transfers.close()


def test_on_the_cpu_a_computation_is_over_when_it_ends() -> None:
    computation = Computation(torch.device("cpu"))
    computation.end()
    assert not computation.is_queued and computation.seconds() == computation.seconds() >= 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_on_a_gpu_the_end_of_a_computation_is_waited_for() -> None:
    matrix = torch.eye(4096, device="cuda")
    computation = Computation(matrix.device)
    for _ in range(50):
        matrix = matrix @ matrix
    computation.end()
    assert computation.is_queued and computation.seconds() > 0
    assert torch.cuda.current_stream().query(), "nothing is left to compute"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_copies_on_a_stream_of_their_own_keep_their_order() -> None:
    """Each result is of its own input, while memory is used again and again."""
    transfers = Transfers(torch.device("cuda"))
    matrix = torch.eye(1024, device="cuda") * 2
    arriving = [transfers.to_device(torch.full((1024, 1024), float(n))) for n in range(50)]
    leaving = []
    for there in arriving:
        result = there.take()
        for _ in range(4):
            result = result @ matrix
        leaving.append(transfers.to_host(result))
        del result
    for number, host in enumerate(leaving):
        assert torch.equal(host.wait(), torch.full((1024, 1024), 16.0 * number))
    transfers.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_what_is_read_beside_computing_is_what_was_there() -> None:
    """A reduce reads an accumulator that is complete while the next step computes."""
    transfers, matrix = Transfers(torch.device("cuda")), torch.eye(2048, device="cuda")
    computation = Computation(matrix.device)
    complete = matrix * 3
    computation.end()
    assert computation.seconds() > 0
    for _ in range(100):
        matrix = matrix @ matrix
    assert torch.equal(transfers.beside(complete.cpu), torch.eye(2048) * 3)
    transfers.close()
