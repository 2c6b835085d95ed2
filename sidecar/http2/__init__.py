"""Bytes <-> HTTP/2 protocol, without I/O.

Knows CLIENT and SERVER, local and remote; nothing of proxies, gRPC, clocks or sockets. It is fed with
`receive_data` and drained with `data_to_send`.
"""
