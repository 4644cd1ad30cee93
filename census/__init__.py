"""Which public model families use which mechanism, counted in the files of the package transformers.

`python -m census` reads the version that requirements.txt pins, as text: nothing of it is imported, nothing
runs. What it finds goes to docs/census.json, with version and date.
"""
