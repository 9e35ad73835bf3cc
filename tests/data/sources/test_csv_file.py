import csv
import io
import logging

import numpy as np
import pytest
from errors import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, write_images
from splits import assert_is_split_whole, contents

from keras_resnet import data
from keras_resnet.names import label


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 30 images."""
    folder = tmp_path_factory.mktemp("pets")
    write_images(folder / "images", 30)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    """Writes a table beside them."""

    def write(header, *rows, encoding="utf-8"):
        path = folder / "pets.csv"
        path.write_bytes("\n".join((header, *rows, "")).encode(encoding))
        return path

    return write


class TestClasses:
    def test_a_quote_that_does_not_end_is_named(self, table):
        rows = self.rows()
        with one_line_error("pets.csv", "line"):
            data.load(table("path,label", '"' + "x" * 140_000, *rows))

    def rows(self, more=""):
        return [f"images/{index}.png,{('dog', 'cat')[index % 3 == 0]}{more}" for index in range(30)]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_without_splits(self, table, encoding):
        source = data.load(table("path,label", *self.rows(), encoding=encoding))
        assert (source.name, source.class_names) == ("pets", ("cat", "dog"))
        assert_is_split_whole(
            source,
            [encoded(index) for index in range(30)],
            [int(index % 3 != 0) for index in range(30)],
        )

    def test_with_splits(self, table):
        names = ["train", "", "val", "test", "validation"]
        rows = [f"{names[index // 6]},{row}" for index, row in enumerate(self.rows())]
        source = data.load(table("split,path,label", *rows))
        for split, indices in (
            (source.train, range(12)),
            (source.validation, [*range(12, 18), *range(24, 30)]),
            (source.test, range(18, 24)),
        ):
            assert contents(split) == [encoded(index) for index in indices]
            assert split.labels.tolist() == [int(index % 3 != 0) for index in indices]

    def test_one_split_of_them(self, table):
        rows = [
            f"{row},{'test' if index < 6 else 'train'}" for index, row in enumerate(self.rows())
        ]
        source = data.load(table("path,label,split", *rows))
        assert contents(source.test) == [encoded(index) for index in range(6)]
        assert len(source.train) + len(source.validation) == 24
        assert min(source.validation.counts(2)) >= 1

    def test_paths_may_be_absolute_and_columns_many(self, table, folder):
        rows = [f'{index},{folder}/{row},"a, b"' for index, row in enumerate(self.rows())]
        source = data.load(table("number,path,label,note", *rows))
        assert sum(len(split) for split in source.splits.values()) == 30

    def test_a_file_that_is_not_there(self, table, folder):
        path = table("path,label", *self.rows(), "images/lost.png,cat", "other/lost.png,dog")
        first, second = (str(folder / name) for name in ("images/lost.png", "other/lost.png"))
        reason = "is not an image that can be read: No such file or directory."
        with one_line_error(f"{first!r} {reason}"):
            data.load(path)
        source = data.load(path, on_error="skip")
        assert source.skipped == (f"{first!r} {reason}", f"{second!r} {reason}")
        assert sum(len(split) for split in source.splits.values()) == 30

    @pytest.mark.parametrize(
        ("lines", "complaints"),
        [
            (["where,label", "0.png,cat"], ["no column 'path'", "'where,label'"]),
            (["path/label", "0.png/cat"], ["no column 'path'", "Expected path,label"]),
            (["path,kind", "0.png,cat"], ["no column 'label'"]),
            (["file,image,label", "0,0.png,cat"], ["'file' and 'image' may both", "'path'"]),
            (["path,class,labels", "0.png,cat,c"], ["'class' and 'labels' may both", "'label'"]),
            (["path,label,one,two", "0,cat,train,test", "1,dog,val,train"], ["'one' and 'two'"]),
            ([""], ["no column 'path'"]),
            (["path,label", "0.png,"], ["line 2: path or label is empty"]),
            (["path,label", "0.png,cat", "", ",cat"], ["line 4: path or label is empty"]),
            (["path,label", "0.png"], ["line 2: path or label is empty"]),
            (
                ["path,label,split", "0.png,cat,train", "1.png,dog,devel"],
                ["line 3: split 'devel' must be one of train, training, validation, valid, val"],
            ),
            (["path,label", "0.png,cat"], ["'cat' is the only class in it"]),
            (["path,label,split", "0.png,cat,test", "1.png,dog,test"], ["no line has", "'train'"]),
        ],
    )
    def test_mistakes_name_the_line(self, table, lines, complaints):
        with one_line_error(*complaints, "pets.csv"):
            data.load(table(*lines))

    def test_a_class_that_is_in_one_split_alone(self, table):
        rows = self.rows(",train")
        path = table("path,label,split", *rows, "images/0.png,cow,test")
        with one_line_error("no images of 'cow' for train"):
            data.load(path)

    def test_another_encoding_is_named(self, table):
        path = table("path,label", *self.rows(), "images/1.png,schön", encoding="latin-1")
        with one_line_error("pets.csv", "is not text in UTF-8"):
            data.load(path)

    def test_no_such_file(self):
        with one_line_error("data 'no/such.csv': there is no such file"):
            data.load("no/such.csv")

    def test_blanks_around_labels_and_columns_do_not_count(self, table):
        rows = [row.replace(",", ", ") + " ,train" for row in self.rows()]
        source = data.load(table(" Path,Label ,SPLIT", *rows))
        assert source.class_names == ("cat", "dog")

    def test_a_comma_in_a_label_needs_quotes(self, table):
        with one_line_error("pets.csv", "line 32: more cells than the first line has columns"):
            data.load(table("path,label", *self.rows(), "images/1.png,Paris, Texas"))
        rows = [*self.rows()[:27], *(f'images/{i}.png,"Paris, Texas"' for i in range(27, 30))]
        assert data.load(table("path,label", *rows)).class_names == ("Paris, Texas", "cat", "dog")
        assert len(data.load(table("path,label", *self.rows(","))).class_names) == 2

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    @pytest.mark.parametrize("header", ["path,label", "label,x,Path", '"path","label"'])
    def test_cells_may_be_divided_by_semicolons_and_tabs(self, table, delimiter, header):
        places = [each.strip('"').lower() for each in header.split(",")]
        rows = [dict(zip(("path", "label"), row.split(","), strict=True)) for row in self.rows()]
        rows = [delimiter.join(row.get(place, "a") for place in places) for row in rows]
        source = data.load(table(header.replace(",", delimiter), *rows))
        assert_is_split_whole(
            source,
            [encoded(index) for index in range(30)],
            [int(index % 3 != 0) for index in range(30)],
        )

    def test_a_comma_in_a_label_is_no_delimiter_beside_semicolons(self, table):
        rows = [row.replace(",", ";", 1) for row in self.rows(", small")]
        source = data.load(table("path;label", *rows))
        assert source.class_names == ("cat, small", "dog, small")
        with one_line_error("line 32: more cells", "Quote a cell that has a semicolon in it"):
            data.load(table("path;label", *rows, "images/1.png;cat;dog"))

    def test_tsv_files(self, table, folder):
        path = table("path\tlabel", *(row.replace(",", "\t") for row in self.rows()))
        path = path.rename(folder / "pets.TSV")
        assert data.load(path).class_names == ("cat", "dog")

    @pytest.mark.parametrize("path", ["filename", "File", "image", "image_path", "file_name"])
    @pytest.mark.parametrize("label", ["class", "Labels"])
    def test_columns_of_other_names_are_taken_and_told(self, table, path, label):
        source = data.load(table(f"{path},{label}", *self.rows()))
        assert source.class_names == ("cat", "dog")
        assert source.notes == (
            f"The column {path.lower()!r} is used as 'path'.",
            f"The column {label.lower()!r} is used as 'label'.",
        )
        source = data.load(table(f"path,label,{path},{label}", *self.rows(",x,y")))
        assert (source.class_names, source.notes) == (("cat", "dog"), ())

    @pytest.mark.parametrize("name", ["Split", " SPLIT ", "set", "data set"])
    @pytest.mark.parametrize("words", [("Train", "VAL", "Test"), ("training", "dev", "testing")])
    def test_splits_in_any_case_and_in_any_column(self, table, name, words):
        rows = [f"{row},{words[index // 10]}" for index, row in enumerate(self.rows())]
        source = data.load(table(f"path,label,{name}", *rows))
        for start, split in enumerate(source.splits.values()):
            assert contents(split) == [encoded(10 * start + index) for index in range(10)]
        taken = name.strip().lower()
        told = (f"The column {taken!r} is used as 'split'.",) if taken != "split" else ()
        assert source.notes == told

    @pytest.mark.parametrize("name", ["split", "set"])
    def test_lines_without_a_split_are_for_training_and_told(self, table, name):
        words = ["train", "test", ""]
        rows = [f"{row},{words[index // 10]}" for index, row in enumerate(self.rows())]
        source = data.load(table(f"path,label,{name}", *rows))
        assert sorted(contents(source.test)) == sorted(map(encoded, range(10, 20)))
        assert "10 lines name no split; they are for training." in source.notes

    def test_numbers_with_a_decimal_comma_are_names_and_told(self, table):
        rows = [f"images/{index}.png;{index % 3},5" for index in range(30)]
        assert data.load(table("path;label", *rows)).notes == (
            "Labels such as '0,5' are read as names of classes. Numbers to predict have a "
            "decimal point.",
        )

    def test_a_column_of_splits_and_other_words_is_told(self, table):
        words = ["train", "test", "unused"]
        rows = [f"{row},{words[index // 10]}" for index, row in enumerate(self.rows())]
        assert data.load(table("path,label,set", *rows)).notes == (
            "The column 'set' is not used: it has test and train, but also 'unused', which is no "
            "split. To use it, rename it to 'split'.",
        )

    def test_columns_with_other_words_are_no_splits(self, table):
        rows = [f"{row},{('train', 'cifar')[index % 2]}" for index, row in enumerate(self.rows())]
        source = data.load(table("path,label,set", *rows))
        assert (sum(map(len, source.splits.values())), source.notes) == (30, ())

    def test_labels_are_compared_in_one_form_of_unicode(self, table):
        names = ("caf\u00e9", "cafe\u0301", "bar")
        rows = [f"images/{index}.png,{names[index % 3]}" for index in range(30)]
        assert data.load(table("path,label", *rows)).class_names == ("bar", "caf\u00e9")

    def test_labels_that_may_be_mistakes_are_told(self, table):
        rows = [f"images/{i}.png,{('Cat', 'cat', 'nan')[i % 3]}" for i in range(30)]
        assert data.load(table("path,label", *rows)).notes == (
            "The classes 'Cat' and 'cat' differ only in case.",
            "The class 'nan' may stand for missing labels.",
        )

    def test_a_column_that_is_there_twice(self, table):
        with one_line_error("pets.csv", "two columns 'label'"):
            data.load(table("path,label,Label", *self.rows(",1")))

    def test_whole_numbers_are_names_with_a_notice(self, table, caplog):
        rows = [f"images/{index}.png,{index % 3}" for index in range(30)]
        with caplog.at_level(logging.INFO, "keras_resnet"):
            source = data.load(table("path,label", *rows))
        assert (source.task, source.class_names) == ("classification", ("0", "1", "2"))
        assert "task='regression' reads them as numbers" in caplog.text


class TestSeveralLabels:
    sets = ("cat|dog", "dog", "", " cow | dog", "cat")

    def rows(self, count=30):
        return [f"images/{index}.png,{self.sets[index % 5]}" for index in range(count)]

    def test_are_rows_of_zeros_and_ones(self, table):
        source = data.load(table("path,label", *self.rows()))
        assert (source.task, source.class_names) == ("multilabel", ("cat", "cow", "dog"))
        expected = [(1, 0, 1), (0, 0, 1), (0, 0, 0), (0, 1, 1), (1, 0, 0)]
        assert_is_split_whole(source, [encoded(i) for i in range(30)], [*expected * 6])
        assert {split.labels.dtype for split in source.splits.values()} == {np.dtype("float32")}

    def test_every_label_is_in_every_split(self, table):
        for seed in range(5):
            source = data.load(table("path,label", *self.rows()), seed)
            assert min(map(min, source.counts().values())) >= 1

    def test_the_splits_depend_on_the_seed_alone(self, table):
        path = table("path,label", *self.rows())
        first, again, other = (contents(data.load(path, seed).test) for seed in (1, 1, 2))
        assert first == again != other

    def test_splits_of_the_file_are_kept(self, table):
        rows = [f"{row},{('train', 'val', 'test')[i // 10]}" for i, row in enumerate(self.rows())]
        source = data.load(table("path,label,split", *rows))
        assert [len(split) for split in source.splits.values()] == [10, 10, 10]

    def test_a_rare_label_stays_for_training(self, table):
        source = data.load(table("path,label", *self.rows(29), "images/29.png,emu|cat"))
        assert source.counts()["train"][3] == 1

    def test_one_label_is_enough(self, table):
        rows = [f"images/{index}.png,{'cat' * (index % 2)}" for index in range(30)]
        source = data.load(table("path,label", *rows), task="multilabel")
        assert source.class_names == ("cat",)
        assert source.train.labels.shape == (len(source.train), 1)

    def test_may_be_one_an_image_if_the_task_says_so(self, table):
        rows = [f"images/{index}.png,{'ab'[index % 2]}" for index in range(30)]
        source = data.load(table("path,label", *rows), task="multilabel")
        assert source.task == "multilabel"
        np.testing.assert_array_equal(source.test.labels.sum(axis=1), 1)

    def test_are_one_class_if_the_task_says_so(self, table):
        rows = [f"images/{index}.png,{('a|b', 'b')[index % 2]}" for index in range(30)]
        source = data.load(table("path,label", *rows), task="classification")
        assert source.class_names == ("a|b", "b")

    def test_are_weighted_equally(self, table):
        source = data.load(table("path,label", *self.rows()))
        weights, counts = source.class_weight(), source.counts()["train"]
        totals = [weights[index] * count for index, count in enumerate(counts)]
        np.testing.assert_allclose(totals, sum(counts) / 3)
        assert source.imbalance == max(counts) / min(counts)

    @pytest.mark.parametrize("label", ["cat||dog", "cat|", "|", " | cat"])
    def test_nothing_beside_a_bar_is_named(self, table, label):
        with one_line_error("pets.csv", f"line 32: label {label.strip()!r} has nothing beside"):
            data.load(table("path,label", *self.rows(), f"images/1.png,{label}"))

    def test_no_labels_at_all(self, table):
        with one_line_error("pets.csv", "no image has a label"):
            data.load(table("path,label", "images/1.png,", "images/2.png,"), task="multilabel")

    def test_an_image_without_a_path(self, table):
        with one_line_error("pets.csv", "line 32: path is empty"):
            data.load(table("path,label", *self.rows(), ",cat"))

    def test_a_label_that_is_in_the_test_alone(self, table):
        rows = [f"{row},train" for row in self.rows()]
        with one_line_error("no images of 'emu' for train. Expected every label in train"):
            data.load(table("path,label,split", *rows, "images/1.png,emu,test"))

    def test_too_few_images(self, table):
        with one_line_error("2 images are too few to split"):
            data.load(table("path,label", "images/1.png,a|b", "images/2.png,c"))


class TestNumbers:
    def rows(self, values):
        return [f"images/{index}.png,{value}" for index, value in enumerate(values)]

    @pytest.mark.parametrize(
        ("header", "values", "task"),
        [
            ("path,value", range(30), None),
            ("path,label", [0.5, *range(29)], None),
            ("path,label", ["1e1", *range(29)], None),
            ("path,label", range(30), "regression"),
            ("path,value", np.linspace(-3, 5, 30), "regression"),
        ],
    )
    def test_are_read_as_floats(self, table, header, values, task):
        source = data.load(table(header, *self.rows(values)), task=task)
        assert (source.task, source.class_names) == ("regression", ("value",))
        assert_is_split_whole(
            source, [encoded(i) for i in range(30)], np.array([*values], "float32").tolist()
        )
        assert min(len(split) for split in source.splits.values()) >= 1

    def test_the_splits_depend_on_the_seed_alone(self, table):
        path = table("path,value", *self.rows(range(30)))
        first, again, other = (contents(data.load(path, seed).test) for seed in (1, 1, 2))
        assert first == again != other

    def test_label_is_what_counts_if_both_are_there(self, table):
        rows = [f"images/{index}.png,{'ab'[index % 2]},{index}" for index in range(30)]
        path = table("path,label,value", *rows)
        assert data.load(path).class_names == ("a", "b")
        assert data.load(path, task="regression").train.labels.max() > 1

    @pytest.mark.parametrize("value", ["many", "nan", "inf", "1_000", "0x10", "1e99", "1,5"])
    def test_what_is_no_number_is_named(self, table, value):
        rows = [*self.rows(range(30)), f'images/1.png,"{value}"']
        with one_line_error("pets.csv", f"line 32: {value!r} is not a number"):
            data.load(table("path,value", *rows))

    @pytest.mark.parametrize("others", [[0.5, "1.5"], [3, 4]])
    @pytest.mark.parametrize("missing", ["nan", "NaN", "N/A", "null"])
    def test_missing_labels_among_numbers_are_refused(self, table, others, missing):
        path = table("path,label", *self.rows([*others * 10, missing, *others]))
        with one_line_error("pets.csv", f"line 22: label {missing!r} is not a number, as all"):
            data.load(path)
        with one_line_error(f"line 22: {missing!r} is not a number"):
            data.load(path, task="regression")
        rows = self.rows([*others * 10, *[missing] * 4])
        assert missing in data.load(table("path,label", *rows), task="classification").class_names

    def test_whole_numbers_with_a_point_are_told(self, table):
        source = data.load(table("path,label", *self.rows(["1.0", "2.0"] * 15)))
        assert source.task == "regression"
        assert "Labels such as 1.0 are read as numbers to predict" in source.notes[0]
        assert data.load(table("path,label", *self.rows(["1.0", "2.5"] * 15))).notes == ()

    def test_have_no_weights_and_no_imbalance(self, table):
        source = data.load(table("path,value", *self.rows(range(30))))
        assert source.imbalance == 1
        with one_line_error("numbers for labels, not classes to weight"):
            source.class_weight()

    def test_other_tasks_need_a_column_label(self, table):
        path = table("path,value", *self.rows(range(30)))
        for task in ("classification", "multilabel"):
            with one_line_error("no column 'label'"):
                data.load(path, task=task)

    def test_too_few_images(self, table):
        with one_line_error("images are too few to split"):
            data.load(table("path,value", "images/1.png,1", "images/2.png,2"))


names = st.text(st.characters(codec="utf-8", exclude_characters="|\r\n\0"), min_size=1).filter(
    lambda name: label(name) and len(label(name).splitlines()) == 1
)


def written(table, *columns):
    """A table of these columns, quoted where that is needed."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(zip(*columns, strict=True))
    header = "path,label,split"[: {1: 4, 2: 10, 3: 16}[len(columns)]]
    return table(header, *buffer.getvalue().split("\n")[:-1])


class TestAnyTable:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(names, min_size=2, max_size=5, unique_by=label), st.data())
    def test_keeps_the_class_of_every_image(self, table, names, drawn):
        blanks = st.sampled_from(["", " ", "\t", "  "])
        labels = [f"{drawn.draw(blanks)}{names[i % len(names)]} " for i in range(30)]
        paths = [f"images/{index}.png" for index in range(30)]
        source = data.load(written(table, paths, labels), task="classification")
        found = {
            file.name: source.class_names[index]
            for split in source.splits.values()
            for file, index in zip(split.images, split.labels, strict=True)
        }
        assert found == {f"{i}.png": label(each) for i, each in enumerate(labels)}

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sets(st.sampled_from("abcdef")), min_size=30, max_size=30),
        st.lists(st.sampled_from(["train", "val", "test"]), min_size=30, max_size=30),
    )
    def test_keeps_the_labels_of_every_image(self, table, sets, splits):
        sets = [set("abcdef"), *sets]
        splits = ["train", *splits[:-2], "val", "test"]
        paths = [f"images/{index % 30}.png" for index in range(31)]
        labels = ["|".join(sorted(each)) for each in sets]
        source = data.load(written(table, paths, labels, splits), task="multilabel")
        for name, split in {"train": "train", "val": "validation", "test": "test"}.items():
            found = [
                {source.class_names[index] for index in np.flatnonzero(row)}
                for row in source.splits[split].labels
            ]
            wanted = zip(sets, splits, strict=True)
            assert found == [each for each, where in wanted if where == name]
