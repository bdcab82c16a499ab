"""Decoders built from decoders: ensembles, deviations, projections."""
