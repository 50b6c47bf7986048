"""What a checkpoint holds, and how it is published, kept, found and verified."""
