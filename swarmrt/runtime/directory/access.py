"""A private run's directory answers members and invited peers only.

hivemind signs every request and every answer with the process's key, and carries a token beside the
signature: here that is what the process shows of itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hivemind.proto.auth_pb2 import AccessToken
from hivemind.utils.auth import AuthorizedRequestBase, TokenAuthorizerBase

from swarmrt.errors import AccessError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.identity import Identity, peer_of_public_key
from swarmrt.runtime.directory.clocks_apart import clock_here, is_far
from swarmrt.trust.checking import Checker
from swarmrt.trust.papers import Papers

LATE_S = 30 * 86400.0  # a member that was away for so long may still look where the trainer is


class RunAuthorizer(TokenAuthorizerBase):  # type: ignore[misc]
    """Lets in whoever shows a statement of the run's owner about itself."""

    def __init__(
        self, identity: Identity, papers: Papers, is_barred: Callable[[PeerId], bool]
    ) -> None:
        super().__init__(identity.private_key)
        self._peer_id, self._papers, self._is_barred = identity.peer_id, papers, is_barred
        self._checker = Checker(papers.run)

    async def validate_request(self, request: AuthorizedRequestBase) -> bool:
        """Return whether to answer. Raises AccessError, which says our time, for a clock that is
        far from it."""
        if request.auth.time and is_far(request.auth.time):
            raise AccessError(clock_here())
        return bool(await super().validate_request(request))

    async def get_token(self) -> AccessToken:
        return AccessToken(
            username=self._peer_id,
            public_key=self.local_public_key.to_bytes(),
            signature=self._shown(),
        )

    def is_token_valid(self, access_token: AccessToken) -> bool:
        try:
            peer = peer_of_public_key(access_token.public_key)
            token = access_token.signature.decode("ascii")
            self._checker.credential(token, peer, time.time(), LATE_S)
        except (AccessError, ValueError, TypeError):
            return False
        return not self._is_barred(peer)

    def does_token_need_refreshing(self, access_token: AccessToken) -> bool:
        return bool(access_token.signature != self._shown())

    def _shown(self) -> bytes:
        return self._papers.show(self._peer_id, time.time()).encode()
