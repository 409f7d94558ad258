"""Models' files: their headers, read with bounds, and the store in which fetched ones are kept."""
