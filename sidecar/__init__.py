"""A gRPC sidecar proxy: one process beside each service instance."""

__version__ = "0.1.0"
