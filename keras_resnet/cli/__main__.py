"""`python -m keras_resnet.cli`."""

from keras_resnet.cli import main

main()
