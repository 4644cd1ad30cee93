"""Notebooks: percent-format Python files, executed and turned into Markdown like that of any page."""
