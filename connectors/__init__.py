"""Sources and sinks, one system a file; optional dependencies are imported inside it only."""
