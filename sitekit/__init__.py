"""The site machinery: what turns docs/ and snippets/ into the published pages."""
