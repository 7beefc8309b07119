"""Are test images among the training images? Exact and perceptual hashes, at any size of either."""
