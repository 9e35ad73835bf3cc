import pytest

from keras_resnet import data


@pytest.fixture(scope="session")
def digits():
    return data.load("digits")
