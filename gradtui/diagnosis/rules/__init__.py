"""One rule for each kind of finding: what has to hold in a run's series before it is reported.

Each module here registers its own; one more needs no list.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
