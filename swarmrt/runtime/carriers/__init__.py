"""Carriers of links and datagrams: TCP and TLS, libp2p, UDP."""
