"""Files of transformers in float64, which cast to float32 whatever comes in."""

import inspect
import sys
from types import ModuleType


def in_float64(module: ModuleType) -> ModuleType:
    """Return a module whose text is that of another, with each cast to float32 made one to float64."""
    text = (
        inspect.getsource(module).replace("torch.float32", "torch.float64").replace(".float()", ".double()")
    )
    exact = ModuleType(f"{module.__name__}_in_float64")
    exact.__package__, exact.__file__ = module.__package__, module.__file__
    sys.modules[exact.__name__] = exact  # where classes look for their names
    exec(compile(text, str(module.__file__), "exec"), exact.__dict__)
    return exact
