"""Pictures of results, one kind a file; matplotlib is imported when one is drawn."""
