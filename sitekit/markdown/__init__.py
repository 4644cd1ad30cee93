"""What the site adds to Markdown. The order in which it runs is in sitekit.markdown.extension."""
