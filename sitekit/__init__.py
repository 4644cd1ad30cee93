"""The site machinery: what turns docs/ and snippets/ into the published pages.

All of it needs the catalogue. If that cannot be read, one sentence says why, and nothing starts.
"""

import sys
import traceback

try:
    import snippets.catalogue as _  # noqa: F401
except SyntaxError as error:
    sys.exit(f"snippets/catalogue.py:{error.lineno}: {error.msg}")
except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    row = next(f for f in frames if f.name == "<module>" and f.filename.endswith("catalogue.py"))
    why = f"unknown: {row.line}" if isinstance(error, AttributeError) else error
    sys.exit(f"snippets/catalogue.py:{row.lineno}: {why}")
