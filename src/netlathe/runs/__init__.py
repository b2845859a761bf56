"""A run: a folder and five phases, from a goal to a finished network and its report."""
