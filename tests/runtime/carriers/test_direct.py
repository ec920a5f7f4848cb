"""Direct links: who is at the other end, and what strangers can do at an open port."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarmrt.errors import RunError, WireError
from swarmrt.ids import MicrobatchId, Work
from swarmrt.messages import Finish, Forward, Part
from swarmrt.runtime.access.identity import Identity, open_identity
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.carriers.certificates import (
    AUTHORITY,
    EXTENSION,
    Contexts,
    _builder,
    _context,
    _private_pem,
    make_certificate,
    make_contexts,
    peer_of_certificate,
)
from swarmrt.runtime.carriers.direct import KEEP_ALIVE, DirectCarrier
from swarmrt.runtime.directory.network import open_network
from swarmrt.runtime.links import dialing, outbox
from swarmrt.runtime.reach.addresses import format_address, host_of, parse_address
from tests.runtime.links.test_links import GARBAGE, End, run, two_ends, until


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return open_identity(tmp_path / "identity")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def with_extension(key: ec.EllipticCurvePrivateKey, value: bytes | None) -> x509.Certificate:
    builder = _builder(x509.Name([]), key.public_key())
    if value is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, value), False)
    return builder.sign(AUTHORITY, hashes.SHA256())


def extension_of(certificate: x509.Certificate) -> bytes:
    value = certificate.extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


def stolen(identity: Identity) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A man in the middle has a TLS key of his own, and somebody's proof for another one."""
    theirs = make_certificate(identity, ec.generate_private_key(ec.SECP256R1()))
    key = ec.generate_private_key(ec.SECP256R1())
    return with_extension(key, extension_of(theirs)), key


def contexts_of(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Contexts:
    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder) / "pem"
        pem.write_bytes(_private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        return Contexts(
            _context(ssl.PROTOCOL_TLS_CLIENT, pem), _context(ssl.PROTOCOL_TLS_SERVER, pem)
        )


def test_certificate_names_who_signed_for_its_key(identity: Identity) -> None:
    certificate = make_certificate(identity, ec.generate_private_key(ec.SECP256R1()))
    assert peer_of_certificate(der(certificate)) == identity.peer_id


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"\x92\x01\x02", b"\x92\xc4\x00\xc4\x00"])
def test_certificate_that_names_nobody(value: bytes | None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(WireError, match="the certificate"):
        peer_of_certificate(der(with_extension(key, value)))
    with pytest.raises(WireError):
        peer_of_certificate(b"nonsense")


def test_proof_for_another_key_is_no_proof(identity: Identity) -> None:
    with pytest.raises(WireError, match="signature is not that of its identity"):
        peer_of_certificate(der(stolen(identity)[0]))


def test_dialer_refuses_whoever_else_answers() -> None:
    """At the address of a record sits another peer, or a man in the middle."""

    async def story() -> None:
        async with open_network([]) as network, two_ends("direct") as (first, second):
            middle = DirectCarrier(second.network.daemon.identity)
            middle._contexts = contexts_of(*stolen(second.network.daemon.identity))
            came: list[Connection] = []
            await middle.start(came.append)
            try:
                end = End(network, "direct")
                await end.links.start()
                for addresses in (first.links.addresses("direct"), middle.addresses()):
                    end.links.know(second.me, {"direct": addresses})
                    end.links.send(second.me, Finish("secret"))
                    await until(lambda: end.failed)
                    assert not first.got and not second.got
                    end.failed.clear()
                await end.links.close()
            finally:
                for connection in came:
                    connection.abort()
                await middle.close()

    run(story())


def test_acceptor_refuses_a_proof_for_another_key() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            thief = DirectCarrier(first.network.daemon.identity)
            thief._contexts = contexts_of(*stolen(second.network.daemon.identity))
            connection = await thief.dial(first.me, first.links.addresses("direct"))
            await connection.wait_closed()
            assert not first.got and not first.lost

    run(story())


def test_client_without_a_certificate_is_refused() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, _):
            host, port = parse_address(first.links.addresses("direct")[0])
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            with pytest.raises(OSError):
                while await reader.read(1 << 16):
                    pass
                raise ConnectionResetError  # or a plain end
            writer.close()

    run(story())


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_at_the_port_closes_its_connection_and_no_other(garbage: bytes) -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            second.links.send(first.me, Finish("before"))
            await until(lambda: first.got)
            host, port = parse_address(first.links.addresses("direct")[0])
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(garbage)
            writer.write_eof()
            try:
                while await reader.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass  # as good as an end
            writer.close()
            second.links.send(first.me, Finish("after"))
            await until(lambda: len(first.got) == 2)

    run(story())


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_from_a_peer_closes_its_connection_and_no_other(garbage: bytes) -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second), open_network([]) as other:
            second.links.send(first.me, Finish("before"))
            await until(lambda: first.got)
            contexts = make_contexts(other.daemon.identity)
            host, port = parse_address(first.links.addresses("direct")[0])
            reader, writer = await asyncio.open_connection(host, port, ssl=contexts.dialing)
            writer.write(garbage)
            if not garbage:
                writer.close()
            try:
                while await reader.read(1 << 16):
                    pass
            except OSError:
                pass  # as good as an end
            writer.close()
            second.links.send(first.me, Finish("after"))
            await until(lambda: len(first.got) == 2)
            assert first.messages() == [Finish("before"), Finish("after")]

    run(story())


def test_closed_port_falls_back_to_libp2p() -> None:
    async def story() -> None:
        async with two_ends("auto") as (first, second):
            listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            port = listener.sockets[0].getsockname()[1]
            listener.close()
            await listener.wait_closed()
            addresses = {**second.addresses(), "direct": [f"127.0.0.1:{port}"]}
            first.links.know(second.me, addresses)
            first.links.send(second.me, Finish("by another way"))
            await until(lambda: second.got)

    run(story())


def test_control_overtakes_bulk() -> None:
    """What does not fit into the socket stays in the queue, behind whatever is more urgent."""

    async def story() -> None:

        async with two_ends("direct") as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            for number in range(4):
                bulk = torch.zeros(40 << 20, dtype=torch.uint8)
                first.links.send(second.me, Part(1, 1, 1, number, False), [bulk])
            await asyncio.sleep(0)
            first.links.send(second.me, Finish("control"))
            await until(lambda: len(second.got) == 6)
            kinds = [type(message).__name__ for message in second.messages()]
            assert kinds[1] == "Finish", kinds

    run(story())


def test_slow_receiver_slows_its_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not read stays at the sender; work beyond a bound comes back."""
    monkeypatch.setattr(outbox, "MAX_QUEUED_BYTES", 32 << 20)
    forward = Forward(Work(MicrobatchId(1, 1), 1), 1, ())

    async def story() -> None:
        async with two_ends("direct", streams=1) as (first, second):
            second.links.send(first.me, Finish("hello"))
            await until(lambda: first.got)
            (link,) = second.links._links
            link.connection._transport.pause_reading()  # type: ignore[attr-defined]
            bulk = torch.zeros(16 << 20, dtype=torch.uint8)
            for number in range(4):
                first.links.send(second.me, Part(1, 1, 1, number, False), [bulk])
            its_outbox = first.links._outboxes[second.me]
            await until(lambda: its_outbox.connection and not its_outbox.connection.may_write)
            assert its_outbox.queued_bytes > 32 << 20 and len(second.got) == 0
            first.links.send(second.me, forward, [bulk])
            first.links.send(second.me, Finish("control"))
            await until(lambda: first.failed)
            assert first.failed == [(second.me, forward)]
            link.connection._transport.resume_reading()  # type: ignore[attr-defined]
            await until(lambda: len(second.got) == 5)

    run(story())


def test_peer_that_cannot_be_reached_is_dialed_less_and_less() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            dialer, nowhere = first.links._dialer, {"direct": ["127.0.0.1:1"]}
            dialer.know(second.me, nowhere)
            waits = []
            for _ in range(10):
                with pytest.raises(RunError, match="cannot reach"):
                    await dialer.dial(second.me)
                with pytest.raises(RunError, match="is dialed again in") as refused:
                    dialer.check_due(second.me)
                waits.append(float(str(refused.value).split()[-2]))
            assert waits == sorted(waits) and waits[-1] > 9
            first.links.send(second.me, Finish("too early"))
            await until(lambda: first.failed)
            second.links.send(first.me, Finish("from there"))  # whoever dials us is reached
            await until(lambda: first.got)
            dialer.check_due(second.me)
            first.links.send(second.me, Finish("back"))
            await until(lambda: second.got)

    run(story())


def test_patience_grows_until_a_slow_link_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that takes longer than a constant was cut off again and again, for ever."""
    monkeypatch.setattr(dialing, "DIAL_S", 0.2)

    async def story() -> None:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 16):
                await asyncio.sleep(0.15)
                writer.write(data)
            writer.close()

        async with two_ends("direct") as (first, second):
            host, port = parse_address(second.links.addresses("direct")[0])

            async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there, back = await asyncio.open_connection(host, port)
                ways = pump(reader, back), pump(there, writer)
                await asyncio.gather(*ways, return_exceptions=True)

            path = await asyncio.start_server(forward, "127.0.0.1", 0)
            begins_at = path.sockets[0].getsockname()[1]
            first.links.know(second.me, {"direct": [f"127.0.0.1:{begins_at}"]})
            dialer = first.links._dialer
            (carrier,) = dialer._carriers
            first.links.send(second.me, Finish("from far away"))
            await until(lambda: second.got)
            assert not first.lost and not first.failed
            assert 0.2 < dialer.patience_s(second.me, carrier) <= dialing.MAX_DIAL_S
            path.close()

    run(story())


def test_silent_machine_is_found_out_while_it_is_written_to() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            for end in (first, second):
                (link,) = end.links._links
                tcp = link.connection.socket()
                assert tcp is not None
                assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                for name, value in KEEP_ALIVE.items():
                    assert tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value

    run(story())


@pytest.mark.parametrize(
    "address", ["", "host:1", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:70000", "::1:80", "[1.2.3.4]:5"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ValueError):
        parse_address(address)


def test_addresses() -> None:
    for host, port in (("127.0.0.1", 80), ("::1", 65535)):
        assert parse_address(format_address(host, port)) == (host, port)
    assert host_of("/ip4/10.0.0.1/tcp/5/p2p/Qm") == "10.0.0.1"
    assert host_of("/dns4/example.org/tcp/5") is None


def test_port_that_cannot_be_listened_at() -> None:
    async def story() -> None:
        async with open_network([]) as network:
            carrier = DirectCarrier(network.daemon.identity, ["203.0.113.1"])
            with pytest.raises(RunError, match=r"cannot listen at 203\.0\.113\.1"):
                await carrier.start(lambda connection: None)

    run(story())


def test_host_of_a_link_that_was_just_reset_is_unknown() -> None:
    async def story() -> None:
        async with open_network([]) as network:
            carrier = DirectCarrier(network.daemon.identity, tls=False)
            with socket.create_server(("127.0.0.1", 0)) as server:
                host, port = server.getsockname()
                connection = await carrier.dial(network.me, [f"{host}:{port}"])
                accepted, _ = server.accept()
                assert connection.host() == "127.0.0.1"
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()  # with a reset
                assert connection.host() is None
                connection.abort()

    asyncio.run(story())  # whose sockets tell; uvloop remembers


@pytest.mark.parametrize("turns", range(6))
def test_no_connection_that_comes_at_the_end_is_left_open(identity: Identity, turns: int) -> None:
    """A connection that comes while a process ends is closed, however far it was."""

    async def story() -> None:
        carrier = DirectCarrier(identity)
        await carrier.start(lambda connection: None)
        dialed = [socket.create_connection(parse_address(carrier.addresses()[0])) for _ in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await carrier.close()
        for one in dialed:
            with one:
                one.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(one.recv, 1) == b""

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(story())
        gc.collect()
