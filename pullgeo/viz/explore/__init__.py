"""The living map of a latent space."""
