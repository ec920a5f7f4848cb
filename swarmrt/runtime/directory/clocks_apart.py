"""A clock that is far from those of others, which hides a run from its process: records seem to
have expired, and a private directory takes no questions of another hour."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

from hivemind.dht.protocol import DHTProtocol
from hivemind.p2p import P2P
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2
from hivemind.utils.auth import AuthorizerBase
from hivemind.utils.timed_storage import get_dht_time

from swarmrt.trust.checking import CLOCK_SLACK_S

ANSWER_S = 5.0
MAX_ASKED = 3
_CLOCK_HERE = re.compile(r"the clock here says (\d{1,12})\b")


def clock_here() -> str:
    """Return what a node says to whoever asks with a clock that is far from its own."""
    return f"the clock here says {get_dht_time():.0f}"


def is_far(seconds: float) -> bool:
    now: float = get_dht_time()
    return abs(seconds - now) > CLOCK_SLACK_S


async def why_clocks_hide(
    p2p: P2P, peers: Iterable[PeerID], authorizer: AuthorizerBase | None
) -> str:
    """Return what is wrong with this process's clock, as the first of the peers that answer see it;
    empty for nothing."""
    for peer in list(peers)[:MAX_ASKED]:
        try:
            async with asyncio.timeout(ANSWER_S):
                theirs = await _clock_of(p2p, peer, authorizer)
        except (TimeoutError, OSError, P2PDaemonError, P2PHandlerError):
            continue  # it is not there, or does not want to tell
        return _in_words(get_dht_time() - theirs) if is_far(theirs) else ""
    return ""


async def _clock_of(p2p: P2P, peer: PeerID, authorizer: AuthorizerBase | None) -> float:
    request = dht_pb2.PingRequest()
    if authorizer is not None:
        await authorizer.sign_request(request, None)
    try:
        answer = await super(DHTProtocol, DHTProtocol).get_stub(p2p, peer).rpc_ping(request)
    except P2PHandlerError as error:
        said = _CLOCK_HERE.search(str(error))
        if said is None:
            raise
        return float(said[1])
    return float(answer.dht_time)


def _in_words(ahead_s: float) -> str:
    size = abs(ahead_s)
    apart = f"{size / 3600:.1f} hours" if size >= 3600 else f"{size / 60:.0f} minutes"
    return (
        f"the clock of this machine is {apart} {'ahead of' if ahead_s > 0 else 'behind'} that of "
        "the directory; set it right"
    )
