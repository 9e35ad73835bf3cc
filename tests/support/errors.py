"""What every error of the package has to be."""

import contextlib
import re

import pytest


@contextlib.contextmanager
def one_line_error(*parts):
    """Expect a ValueError of one line that holds all of `parts`."""
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message
