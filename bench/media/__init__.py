"""What the parts `images`, `audio`, `video` and `pages` share: files, the two sides of a race, and the Python side's models."""
