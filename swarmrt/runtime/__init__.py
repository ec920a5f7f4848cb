"""The real world: asyncio, sockets and torch around the pure cores."""
