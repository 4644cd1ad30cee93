"""One figure per mechanism, drawn by running its snippet; the same tree as snippets/."""
