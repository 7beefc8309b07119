"""Files, processes, memory and configurations: what any part may need and nothing here is about."""
