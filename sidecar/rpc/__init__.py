"""The meaning of gRPC's headers and trailers: status, deadline, metadata, outcome. Pure: no streams, no clock."""
