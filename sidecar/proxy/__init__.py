"""The data path: accepts the app's connections, forwards each RPC to an endpoint, relays both ways.

Driven by callbacks of the event loop; no task, future or timer is made per RPC.
"""
