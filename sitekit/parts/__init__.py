"""Parts of a page, one file each; sitekit.fences makes them available to Markdown."""
