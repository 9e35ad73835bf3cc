import pytest
import small


@pytest.fixture(scope="session")
def digits():
    """300 digits to train on, 100 to validate on; not augmented."""
    return small.digits()
