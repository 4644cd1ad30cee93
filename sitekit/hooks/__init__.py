"""MkDocs hooks: only what a Markdown extension cannot do."""
