"""Decisions, without I/O: members, pick, eject, retry, budget. `now` and `rng` are arguments; nothing waits or logs."""
