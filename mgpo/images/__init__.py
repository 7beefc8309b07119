"""Images: views and their coordinates, boxes in what a model wrote, pixels that are decoded where they are needed."""
