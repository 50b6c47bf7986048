"""The pictures of a comparison, as PNG files in memory."""
