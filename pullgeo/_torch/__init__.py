"""Every use of a private or version-dependent part of torch."""
