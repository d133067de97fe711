"""Environments and the user's own modules: found, packed, named."""
