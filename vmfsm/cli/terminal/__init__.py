"""What a person has before them: a screen that is written to, keys that are pressed."""
