"""Workers from batch systems."""
