"""The living map: a page that carries the decoder as a surface, so that geodesics follow the pointer."""
