"""Score and learn from every event of a stream, adapt to drift, replay to the same bits."""
