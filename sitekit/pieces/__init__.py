"""What the parts of a page (sitekit.parts) are made of."""
