"""What stands in for the widget where its packages are missing."""

from typing import Any

from pullgeo.errors import DataError


class Explorer:
    """Says how to install what the widget needs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        raise DataError('viz.Explorer needs anywidget, which is not installed. Run: pip install "pullgeo[notebook]"')
