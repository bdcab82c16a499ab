"""What knows nothing of geometry."""
