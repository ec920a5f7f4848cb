"""Home networks on this machine: namespaces, narrow links, routers that translate."""
