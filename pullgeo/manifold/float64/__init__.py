"""A decoder's twin in double precision."""
