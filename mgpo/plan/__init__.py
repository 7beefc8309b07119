"""What a launch will cost before it is launched: tokens and memory of a step, and what would make it fit."""
