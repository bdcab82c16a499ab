"""Newton's method on discrete energies."""
