"""The kinds of Jacobians with respect to the input, one structure a file."""
