"""Models to ask: on weights in this process, or behind a server."""
