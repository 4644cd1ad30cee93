"""The formulas of the catalogue as a JavaScript module, so that the comparison can compute with them."""

from sitekit.store import results
from snippets.catalogue import CATALOGUE, Mechanism


def module() -> str:
    """Return the source of a module that exports `formulas`: slug to functions of the sizes, by kind."""
    rows = (
        f'  "{mechanism.slug}": {{ {", ".join(_functions(mechanism))} }},' for mechanism in CATALOGUE.values()
    )
    return "\n".join(["// Made from snippets/catalogue.py", "export const formulas = {", *rows, "}", ""])


def _functions(mechanism: Mechanism) -> list[str]:
    found = results(mechanism)
    arguments = f"({{ {', '.join(sorted(found.rows[0].sizes))} }})"
    return [f"{kind}: {arguments} => {code}" for kind, code in found.javascript.items()]
