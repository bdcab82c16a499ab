"""Linear systems whose blocks lie near the diagonal."""
