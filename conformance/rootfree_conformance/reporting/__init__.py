"""What a run leaves behind: a record, and a screen."""
