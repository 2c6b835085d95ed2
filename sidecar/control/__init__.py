"""The registry: our own registration in it, and every upstream's members from it. The proxy meets it only in Cluster."""
