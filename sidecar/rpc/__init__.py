"""The meaning of gRPC's headers and trailers: status, deadline, metadata, outcome. Pure; knows no streams and no clock."""
