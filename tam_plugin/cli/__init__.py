"""The command `tam`: one file a command."""
