"""Reads what a run leaves behind, and shows a run while it goes on."""
