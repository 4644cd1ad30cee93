"""The folder `snippets` is installed as the package `attention_atlas`; all else is in pyproject.toml."""

from setuptools import find_packages, setup

NAME, FOLDER = "attention_atlas", "snippets"

setup(
    packages=[NAME, *(f"{NAME}.{package}" for package in find_packages(FOLDER))],
    package_dir={NAME: FOLDER},
    package_data={NAME: ["py.typed"]},
)
