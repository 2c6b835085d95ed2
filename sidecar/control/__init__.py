"""The registry: our registration in it, and every upstream's members from it. Meets the proxy only in Cluster."""
