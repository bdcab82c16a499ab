"""Centers of points: Fréchet means and their shared Newton system."""
