"""Pages as plain Markdown, to copy and for programs that read: no include, fence or citation key is left."""
