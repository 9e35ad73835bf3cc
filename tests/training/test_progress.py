from keras_resnet.training import logs


def test_a_line_tells_how_quick_its_own_epoch_was(monkeypatch, capsys):
    seconds = 0.0
    monkeypatch.setattr(logs.time, "perf_counter", lambda: seconds)
    progress = logs.Progress(2, epochs=3, steps=5)
    # Seconds of a step: in the last epoch the machine is busy.
    for epoch, duration in enumerate([1.0, 1.0, 4.0]):
        progress.begin_epoch(epoch, 0)
        for step in range(5):
            seconds += duration
            progress.step(step + 1, 100, {"loss": 1.0})
        seconds += 30  # validation
        progress.end_epoch(epoch, {"loss": 1.0})
    rates = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert rates == ["100 images/s", "100 images/s", "25 images/s"]
    assert progress.images_per_second == 1400 / 29  # all steps but the first
