"""The engine: GeoAlign as a process that a map program starts, talks to in JSON lines, and can do without."""
