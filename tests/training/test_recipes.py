import dataclasses

import keras
import numpy as np
import pytest
import small
from errors import one_line_error

import keras_resnet
from keras_resnet import data, training, transfer


class TestRecipe:
    def test_learning_rate_warms_up_scales_and_decays(self):
        recipe = training.Recipe(epochs=10, batch_size=128, learning_rate=0.1, warm_up=0.2)
        rate = recipe.schedule(steps_per_epoch=10)
        rates = np.array([float(rate(step)) for step in range(101)])
        np.testing.assert_allclose(rates[:21], np.linspace(0, 0.05, 21), atol=1e-6)
        cosine = 0.025 * (1 + np.cos(np.pi * np.arange(81) / 80))
        np.testing.assert_allclose(rates[20:], cosine, atol=1e-6)

    def test_learning_rate_falls_at_milestones(self):
        recipe = training.recipe("paper", epochs=8, batch_size=512, warm_up=0.25)
        rate = recipe.schedule(steps_per_epoch=5)
        rates = np.array([float(rate(step)) for step in range(41)])
        np.testing.assert_allclose(rates[:11], np.linspace(0, 0.2, 11), atol=1e-7)
        np.testing.assert_allclose(rates[10:20], 0.2, rtol=1e-5)
        np.testing.assert_allclose(rates[20:30], 0.02, rtol=1e-5)
        np.testing.assert_allclose(rates[30:], 0.002, rtol=1e-5)

    def test_weights_decay_but_for_biases_and_normalization(self):
        model = small.model()
        optimizer = training.Recipe(weight_decay=0.1, warm_up=0.0).make_optimizer(1)
        before = {v.path: v.numpy() for v in model.trainable_variables}
        optimizer.apply(
            [keras.ops.zeros(v.shape) for v in model.trainable_variables],
            model.trainable_variables,
        )
        changed = {v.name for v in model.trainable_variables if (v.numpy() != before[v.path]).any()}
        assert changed == {"kernel"}

    def test_optimizers_have_their_own_rates_unless_one_is_given(self):
        sgd, adamw = training.Recipe(), training.Recipe(optimizer="adamw")
        assert (sgd.learning_rate, sgd.weight_decay) == (0.1, 5e-5)
        assert (adamw.learning_rate, adamw.weight_decay) == (1e-3, 0.05)
        assert sgd.changed(optimizer="adamw") == adamw
        assert adamw.changed(optimizer="adamw", epochs=3) == adamw.changed(epochs=3)
        given = training.recipe("finetune", optimizer="lamb", weight_decay=0.3)
        assert (given.learning_rate, given.weight_decay) == (2e-3, 0.3)

    def test_learning_rate_of_lamb_scales_with_the_square_root(self):
        optimizer = training.recipe("a2", warm_up=0.0).make_optimizer(7)
        assert float(optimizer.learning_rate) == pytest.approx(5e-3)  # theirs, for 2,048 images
        smaller = training.recipe("a2", warm_up=0.0, batch_size=512).make_optimizer(7)
        assert float(smaller.learning_rate) == pytest.approx(2.5e-3)

    @pytest.mark.parametrize(
        ("name", "of_optimizer"),
        [
            ("sgd", {"momentum": 0.7, "nesterov": True, "l2": 0.3}),
            ("adamw", {"beta_1": 0.7, "epsilon": 1e-8, "weight_decay": 0.3}),
            ("lamb", {"beta_1": 0.7, "epsilon": 1e-6, "weight_decay": 0.3}),
        ],
    )
    def test_optimizers_have_what_the_recipe_says(self, name, of_optimizer):
        changes = dict(momentum=0.7, weight_decay=0.3, clip_norm=2.0, rates={"conv1": 0.5})
        config = training.Recipe(optimizer=name, **changes).make_optimizer().get_config()
        expected = {**of_optimizer, "global_clipnorm": 2.0, "rates": {"conv1": 0.5}}
        assert {key: config[key] for key in expected} == expected

    def test_ready_made_are_changed_by_field(self):
        assert training.recipe("Modern", label_smoothing=0.0).label_smoothing == 0.0
        assert training.recipe("paper") == training.RECIPES["paper"]
        with one_line_error("field of a recipe 'label' is not known. Did you mean label_smoothing"):
            training.recipe("modern", label=0.1)
        with one_line_error("ema='much' must be a number"):
            training.recipe("modern", ema="much")
        with one_line_error("recipe 'old' is not known"):
            training.recipe("old")

    def test_parts_must_divide_the_batch(self):
        with one_line_error("accumulation=3 must divide batch_size=64"):
            training.Recipe(accumulation=3)

    @pytest.mark.parametrize(
        "options",
        [
            dict(epochs=0),
            dict(epochs=1.5),
            dict(batch_size=0),
            dict(learning_rate=0.0),
            dict(optimizer="adam"),
            dict(target_threshold=1.0),
            dict(optimizer=None),
            dict(layer_decay=0.0),
            dict(layer_decay=1.1),
            dict(drop_path=1.0),
            dict(drop_path=-0.1),
            dict(learning_rate=float("inf")),
            dict(mixup=float("inf")),
            dict(ema=None),
            dict(weight_decay=float("nan")),
            dict(rates={"conv1": float("inf")}),
            dict(augmentation="nonsense"),
            dict(warm_up=1),
            dict(momentum=7),
            dict(weight_decay=-1),
            dict(mixup=-0.1),
            dict(cutmix=-0.1),
            dict(mix_probability=1.5),
            dict(switch_probability=-0.5),
            dict(erasing=2),
            dict(repeats=0),
            dict(repeats=2.5),
            dict(ema=1.0),
            dict(clip_norm=0),
            dict(accumulation=0),
            dict(milestones=(0.5, 1.5)),
            dict(milestones=0.5),
            dict(milestones=("a",)),
            dict(rates=3),
            dict(rates={"conv1": "slow"}),
            dict(clip_norm="abc"),
            dict(nesterov=2),
            dict(momentum=True),
        ],
    )
    def test_refuses_numbers_out_of_range(self, options):
        (name,) = options
        with pytest.raises(ValueError, match=f"{name}="):
            training.Recipe(**options)


class TestLayerDecay:
    def test_is_that_of_timm(self):
        """Scales of timm 1.0.31: `param_groups_layer_decay(resnet50, layer_decay=0.75)`."""
        model = keras_resnet.ResNet50(weights=None, input_shape=(32, 32, 3))
        rates = training.Recipe(layer_decay=0.75).make_optimizer(model=model).rates
        expected = {
            **dict.fromkeys(["conv1_conv", "conv1_bn"], 0.007517),
            **dict.fromkeys(["conv2_block1_0_conv", "conv2_block1_3_bn"], 0.010023),
            "conv2_block2_1_conv": 0.013363,
            "conv5_block1_1_conv": 0.421875,
            "conv5_block2_2_bn": 0.5625,
            "conv5_block3_3_conv": 0.75,
            "predictions": 1.0,
        }
        assert {name: rates[name] for name in expected} == pytest.approx(expected, rel=1e-4)
        assert len({*rates.values()}) == 18
        assert {*rates} == {layer.name for layer in model.layers if layer.weights}

    def test_multiplies_the_rates(self):
        model = small.model(filters=(4, 8))
        recipe = training.Recipe(layer_decay=0.5, rates={"conv2": 0.1, "conv2_block1_2": 3.0})
        rates = recipe.make_optimizer(model=model).rates
        found = [rates[f"conv2_block1_{layer}"] for layer in ("1_conv", "2_conv")]
        assert found == pytest.approx([0.025, 0.75])
        assert rates["conv3_block1_1_conv"] == 0.5

    def test_without_a_model_is_refused(self):
        with one_line_error("layer_decay=0.5 depends on the model's layers: pass model="):
            training.Recipe(layer_decay=0.5).make_optimizer()

    def test_replaces_the_rates_of_stages(self):
        assert transfer.stages(layer_decay=0.7)[-1].recipe.rates == {}
        assert transfer.stages()[-1].recipe.rates["conv1"] == 0.05


class TestDropPath:
    def test_is_up_to_the_model(self, digits):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Dropout(0.2, noise_shape=(None, 1, 1, 1))(inputs)
        x = keras.layers.Dropout(0.4)(keras.layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, keras.layers.Dense(10, "softmax")(x), name="dropping")
        recipe = training.Recipe(epochs=1, drop_path=0.3)
        with one_line_error("drop_path=0.3: dropping was built with drop_path=0.2: build it with"):
            training.train(model, digits, recipe)
        with one_line_error("drop_path=0.3: resnet was built with drop_path=0: build it"):
            training.train(small.model(), digits, recipe)
        result = training.train(model, digits, recipe.changed(drop_path=0.2), verbose=0)
        assert result.best_epoch == 1


class TestVariation:
    def test_is_added_to_the_augmentation_of_the_data(self, digits):
        digits = dataclasses.replace(digits, augmentation="handwriting")
        task = training.task_of(digits)
        assert task.policy(digits, training.Recipe()) == data.AUGMENTATIONS["handwriting"]
        recipe = training.Recipe(
            mixup=0.3, cutmix=0.6, mix_probability=0.5, switch_probability=0.25, erasing=0.1
        )
        policy = task.policy(digits, recipe.changed(repeats=3))
        assert [mix.alpha for mix in policy.mixes()] == [0.3, 0.6]
        assert policy.chances == (0.375, 0.125)
        assert (policy.erasing, policy.repeats) == (0.1, 3)
        assert len(policy.layers()) == 3
        assert task.mixes(policy)

    @pytest.mark.parametrize(
        ("name", "mixup", "strength", "repeats"),
        [("a1", 0.2, 7, 3), ("a2", 0.1, 7, 3), ("a3", 0.1, 6, 1)],
    )
    def test_of_strikes_back_is_that_of_its_table_2(self, digits, name, mixup, strength, repeats):
        policy = training.task_of(digits).policy(digits, training.recipe(name))
        assert [mix.alpha for mix in policy.mixes()] == [mixup, 1.0]
        assert policy.chances is None
        drawn = policy.operations
        assert (10 * drawn.strength, 10 * drawn.spread) == (strength, 0.5)
        assert (drawn.count, drawn.probability, len(drawn.table)) == (2, 0.5, 15)
        assert (policy.area, policy.flip) == ((0.08, 1.0), True)
        assert (policy.erasing, policy.repeats) == (0.0, repeats)

    def test_cutmix_cannot_mix_numbers(self, digits):
        recipe = training.Recipe(epochs=1, cutmix=1.0)
        values = {
            name: data.Split(split.images, split.labels / 2)
            for name, split in digits.splits.items()
        }
        source = dataclasses.replace(digits, class_names=("half",), task="regression", **values)
        with one_line_error("the augmentation uses CutMix, which cannot mix numbers to predict"):
            training.train(small.regressor(source), source, recipe, verbose=0)
        with one_line_error("cutmix=1.0 is for classes and labels, not for regression"):
            training.task_of(source).check_options({"cutmix": 1.0})


class TestRecipesAtWork:
    def test_adamw_and_lamb_learn(self, digits):
        for name, rate in (("adamw", 0.05), ("lamb", 0.1)):
            recipe = training.Recipe(
                epochs=5, batch_size=32, optimizer=name, learning_rate=rate, layer_decay=0.8
            )
            model = small.model(filters=small.LEARNS)
            result = training.train(model, digits, recipe, verbose=0)
            assert result.history["val_accuracy"][-1] > 0.7, (name, result.history)

    def test_an_interrupted_run_ends_as_one_that_was_not(self, digits, tmp_path):
        recipe = training.Recipe(epochs=2, batch_size=100, optimizer="lamb", layer_decay=0.8)

        def stop(epoch, logs):
            raise KeyboardInterrupt

        def trained(*callbacks, **options):
            model = small.model()
            training.train(model, digits, recipe, callbacks=callbacks, verbose=0, **options)
            return model.get_weights()

        with pytest.raises(KeyboardInterrupt):
            trained(keras.callbacks.LambdaCallback(on_epoch_end=stop), checkpoints=tmp_path)
        epochs = []
        count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: epochs.append(epoch))
        went_on = trained(count, checkpoints=tmp_path)
        assert 0 not in epochs
        for mine, other in zip(went_on, trained(), strict=True):
            np.testing.assert_array_equal(mine, other)

    def test_one_class_against_all_others_is_learned(self, digits):
        recipe = training.Recipe(
            epochs=5, batch_size=32, learning_rate=6.4, loss="binary_cross_entropy"
        )
        model = small.model(filters=small.LEARNS)
        result = training.train(model, digits, recipe, verbose=0)
        assert result.history["val_accuracy"][-1] > 0.7
        answers = model.predict(digits.test.images, verbose=0)
        np.testing.assert_allclose(answers.sum(-1), 1.0, rtol=1e-5)  # a softmax, as before

    def test_patience_ends_a_run(self, digits):
        recipe = training.Recipe(epochs=9, learning_rate=1e-9, warm_up=0.0, patience=1)
        epochs = []
        count = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: epochs.append(epoch)
        )
        result = training.train(small.model(), digits, recipe, callbacks=[count], verbose=0)
        assert len(epochs) == len(result.history["loss"]) < 9
        assert result.best_epoch == len(epochs) - 1

    def test_smooth_labels_cost_even_the_sure(self, digits):
        """No probabilities cost less than the entropy of the smooth labels."""
        losses = []
        for smoothing in (0.0, 0.5):
            recipe = training.Recipe(
                epochs=5, batch_size=32, learning_rate=0.8, label_smoothing=smoothing
            )
            model = small.model(filters=small.LEARNS)
            result = training.train(model, digits, recipe, verbose=0)
            losses.append(result.history["loss"][-1])
        entropy = -(0.55 * np.log(0.55) + 9 * 0.05 * np.log(0.05))
        assert losses[0] < entropy < losses[1]

    def test_classes_may_be_weighted(self, digits):
        recipe = training.Recipe(epochs=3, batch_size=32, learning_rate=0.8)
        only_seven = {label: float(label == 7) for label in range(10)}
        model = small.model(filters=small.LEARNS)
        training.train(model, digits, recipe, class_weight=only_seven, verbose=0)
        assert (model.predict(digits.test.images, verbose=0).argmax(-1) == 7).mean() > 0.9

    def test_labels_may_be_mixed(self, digits):
        recipe = training.Recipe(epochs=1, batch_size=64, augmentation="strong")
        colour = data.Split(np.repeat(digits.train.images[:64], 3, -1), digits.train.labels[:64])
        splits = dict(train=colour, validation=colour, test=colour)
        source = dataclasses.replace(digits, channels=3, **splits)
        model = small.model(channels=3, size=None)
        result = training.train(model, source, recipe, image_size=32, verbose=0)
        assert np.isfinite(result.history["loss"]).all()
