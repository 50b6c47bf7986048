"""The results of a suite as JSON, Markdown, one HTML page and a plot."""
