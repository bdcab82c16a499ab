"""The sweep needs private parts of torch to collect, and is run by hand."""

collect_ignore = ["sweep_operations.py"]
