"""Training: the LightningModule, its groups, micro-batches, loss and updates."""
