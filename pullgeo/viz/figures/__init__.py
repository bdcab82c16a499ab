"""Figures for papers: each a plain plotly figure, or part of one that is passed in."""
