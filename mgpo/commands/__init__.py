"""The command line beyond its list of commands: LightningCLI's, and the keys that can be known without it."""
