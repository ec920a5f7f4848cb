"""Ports, announced addresses, and from where a process can be reached."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarmrt.cli.options.reach import place_of, place_of_trainer
from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.lab.doctor.reachability import advise
from swarmrt.runtime.reach.address_book import MAX_PEERS, AddressBook
from swarmrt.runtime.reach.place import (
    Place,
    Ports,
    Standing,
    check_free,
    describe,
    own_address,
    parse_place,
    parse_ports,
    pick_port,
    standing_of,
)

SOMEBODY = "QmUvmcYDDGE1hcwzsGbguEV8NYP179bwfSYtZezJcTMxgt"
OUTSIDE = f"/ip4/11.0.0.1/tcp/7000/p2p/{SOMEBODY}"
NEARBY = f"/ip4/192.168.1.7/tcp/7000/p2p/{SOMEBODY}"
HERE = f"/ip4/127.0.0.1/tcp/7000/p2p/{SOMEBODY}"


def test_one_port_stands_for_three() -> None:
    assert parse_ports("7000") == parse_ports("7000,7001,7001") == Ports(7000, 7001, 7001)
    assert parse_ports(None) == Ports() and not Ports().are_chosen
    assert Ports(7000, 7001, 7001).option == "--port 7000"
    assert Ports(7000, 7001, 7002).option == "--port 7000,7001,7002"
    assert str(Ports(7000, 7001, 7001)) == "TCP 7000, TCP 7001 and UDP 7001"


@pytest.mark.parametrize("text", ["", "x", "0", "65535", "70000", "7000,7001", "1,1,1", "-5"])
def test_ports_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="port"):
        parse_ports(text)


def test_listening_takes_ip_addresses_and_multiaddrs() -> None:
    place = parse_place(["0.0.0.0", "::"], "7000", [])
    assert place.multiaddrs == ["/ip4/0.0.0.0/tcp/7000", "/ip6/::/tcp/7000"]
    old = parse_place(["/ip4/127.0.0.1/tcp/5000"], None, [])
    assert old.is_loopback and old.ports == Ports(5000, 0, 0)
    for text in ("localhost", "/dns4/example.org/tcp/1", "/ip4/1.2.3.4/udp/1", "1.2.3.4:5"):
        with pytest.raises(UsageError, match="--listen"):
            parse_place([text], None, [])
    with pytest.raises(UsageError, match="7000 already"):
        parse_place(["/ip4/0.0.0.0/tcp/5000"], "7000", [])


def test_announced_ports_are_those_of_the_router() -> None:
    place = parse_place(["0.0.0.0"], "7000", ["11.0.0.5", "/ip4/11.0.0.6/tcp/17000"])
    assert [one.multiaddr for one in place.announced] == [
        "/ip4/11.0.0.5/tcp/7000",
        "/ip4/11.0.0.6/tcp/17000",
    ]
    assert place.announced_direct == ["11.0.0.5:7001", "11.0.0.6:17001"]
    assert place.announced_udp == place.announced_direct
    v6 = parse_place(["::"], "7000,7002,7003", ["2a0f::5"])
    assert v6.announced_direct == ["[2a0f::5]:7002"] and v6.announced_udp == ["[2a0f::5]:7003"]


@pytest.mark.parametrize(
    ("announce", "port", "why"),
    [
        ("11.0.0.5", None, "needs --port"),
        ("/dns4/example.org/tcp/1", "7000", "IP address"),
        ("0.0.0.0", "7000", "nobody can be reached"),
        ("/ip4/11.0.0.5/tcp/65535", "7000", "port is a number"),
    ],
)
def test_announcing_nonsense_is_refused(announce: str, port: str | None, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_place(["0.0.0.0"], port, [announce])


@pytest.mark.parametrize(
    ("place", "join", "own", "standing"),
    [
        (Place(), [OUTSIDE], "11.0.0.9", Standing.HERE),
        (Place(("0.0.0.0",)), [], None, Standing.PUBLIC),
        (Place(("0.0.0.0",)), [OUTSIDE], "11.0.0.9", Standing.PUBLIC),
        (Place(("0.0.0.0",)), [OUTSIDE], "192.168.1.2", Standing.BEHIND),
        (Place(("0.0.0.0",)), [OUTSIDE], None, Standing.NEAR),
        (Place(("0.0.0.0",)), [NEARBY], "192.168.1.2", Standing.NEAR),
        (parse_place(["0.0.0.0"], "7000", ["11.0.0.5"]), [OUTSIDE], "10.0.0.2", Standing.PUBLIC),
    ],
)
def test_standing_follows_from_the_way_to_those_that_are_joined(
    place: Place, join: Sequence[str], own: str | None, standing: Standing
) -> None:
    assert standing_of(place, join, lambda host: own) is standing
    assert describe(place, standing, ["192.168.1.2"])


def test_who_joins_on_this_machine_listens_on_it_alone() -> None:
    assert place_of([HERE], [], None, [], False).is_loopback
    assert not place_of([HERE, OUTSIDE], [], None, [], False).is_loopback
    assert "0.0.0.0" in place_of([], [], None, [], False).hosts
    assert own_address("127.0.0.1") == "127.0.0.1"


def test_picked_port_is_free_with_the_next_one() -> None:
    first = pick_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", first + 1))
        assert pick_port() != first


def test_port_of_somebody_else_is_refused() -> None:
    """libp2p's daemon would share it, and get some of the other one's connections."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = parse_place(["127.0.0.1"], str(other.getsockname()[1]), [])
        with pytest.raises(UsageError, match="choose another --port"):
            check_free(place)
    check_free(place)


def test_trainer_keeps_its_ports(tmp_path: Path) -> None:
    first = place_of_trainer(tmp_path, [], [], None, ["11.0.0.5"], False)
    assert first.ports.are_chosen and first.announced[0].ports == first.ports
    AddressBook(tmp_path).keep_ports(Ports(30000, 30001, 30001))
    assert place_of_trainer(tmp_path, [], [], None, [], False).ports.libp2p == 30000
    assert place_of_trainer(tmp_path, [], [], "7000", [], False).ports.libp2p == 7000
    assert place_of_trainer(tmp_path, [HERE], [], None, [], False).ports == Ports()


def test_address_book_is_bounded_and_whole(tmp_path: Path) -> None:
    book = AddressBook(tmp_path)
    book.keep_ports(Ports(7000, 7001, 7001))
    for number in range(MAX_PEERS + 5):
        book.keep(PeerId(f"peer{number}"), [f"/ip4/11.0.0.{number}/tcp/1"] * 9)
    book.keep(PeerId("peer9"), ["/ip4/11.1.1.1/tcp/1", "x" * 1000])
    book.keep(PeerId("nowhere"), [])
    again = AddressBook(tmp_path)
    assert again.ports == Ports(7000, 7001, 7001)
    assert again.addresses[0] == "/ip4/11.1.1.1/tcp/1"
    assert again.addresses[1] == f"/ip4/11.0.0.{MAX_PEERS + 4}/tcp/1"
    assert len(json.loads((tmp_path / "addresses.json").read_text())["peers"]) == MAX_PEERS
    assert [path.name for path in tmp_path.iterdir()] == ["addresses.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ports": [1, 2, 99999]}', '{"peers": 3}'])
def test_damaged_address_book_does_not_stop_a_run(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "addresses.json").write_text(text)
    book = AddressBook(tmp_path)
    assert book.addresses == [] and book.ports == Ports()
    assert "goes unread" in caplog.text


def test_advice_names_the_ports_and_who_has_to_open_them() -> None:
    place = parse_place(["0.0.0.0"], "7000", [])
    firewall = advise(place, ["11.0.0.9"], "11.0.0.9")
    assert "sudo ufw allow 7000,7001/tcp; sudo ufw allow 7001/udp" in firewall
    router = advise(place, ["192.168.1.2"], "11.0.0.9")
    assert "forward TCP 7000, TCP 7001 and UDP 7001 to 192.168.1.2" in router
    assert "--port 7000 --announce 11.0.0.9" in router
