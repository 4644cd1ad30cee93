"""Speed and memory of the snippets beside the public implementations a reader would otherwise take."""
