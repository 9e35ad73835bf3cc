import numpy as np
import pytest

from keras_resnet.analysis import Evaluation, MultiLabelEvaluation
from keras_resnet.cli.quality import show_quality

NAMES = tuple(f"class-{number:02}" for number in range(40))


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_tables_show_the_best_and_the_worst_of_many_classes(capsys, task):
    labels, found = np.repeat(np.arange(40), 2), np.repeat(np.arange(40), 2)
    found[[14, 60]] = 0  # one image of class 7 and one of class 30
    if task == "classification":
        quality = Evaluation(labels, np.eye(40)[found], NAMES)
    else:
        quality = MultiLabelEvaluation(np.eye(40)[labels], np.eye(40)[found], NAMES)
    show_quality("Test images", quality, task)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.endswith(": the 16 with the highest F1 and the 16 with the lowest")
    shown = [words[0] for line in lines if (words := line.split()) and words[0] in NAMES]
    assert len(shown) == 32
    assert shown == sorted(shown)
    assert {"class-00", "class-07", "class-30"} <= {*shown}
    assert "Confusion" not in "".join(lines)
