from keras_resnet.cli.console import table


def test_a_title_longer_than_its_table_is_one_line(capsys):
    table("Confusion: a row for each true class", ["", "a"], [["a", 1]])
    assert capsys.readouterr().out.splitlines()[0] == "Confusion: a row for each true class"
