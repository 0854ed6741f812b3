"""Tables from files and frames: text into columns, columns into numbers."""
