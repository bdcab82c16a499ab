"""Initial curves between two points."""
