"""The comparison as one JSON and one self-contained HTML page."""
