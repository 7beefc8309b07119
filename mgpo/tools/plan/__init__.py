"""What a launch will cost before it is launched: tokens, memory and time of a step, and what would make it fit."""
