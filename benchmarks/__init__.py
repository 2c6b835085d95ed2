"""The benchmark harness: what the sidecar costs, beside the proxies one would otherwise run.

Nothing here is imported by the sidecar, and only `own_balancer` imports it: every subject is a fresh process that is
reached over loopback and measured from outside. Start with `scripts/bench --help`.
"""
