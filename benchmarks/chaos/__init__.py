"""What the caller sees while instances fail: the sidecar and a tuned Envoy in front of the same real servers.

Every server, proxy and generator is a process of its own; faults are made on purpose and at a known instant. Nothing
here is imported by the sidecar. Start with `scripts/chaos --help`.
"""
