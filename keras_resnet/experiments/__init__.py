"""The papers' experiments: models are trained and measured, and a page says what was found.

The names are listed in `__init__.pyi`; what stands behind one is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
