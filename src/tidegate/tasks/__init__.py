"""Tasks: whole jobs on top of the other rooms, a folder each."""
