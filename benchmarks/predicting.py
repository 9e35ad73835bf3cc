"""Predictions for a folder of photographs, as scripts do it: `python -m benchmarks.predicting`.

    python -m benchmarks.predicting torch MODEL FOLDER float32|bfloat16
    python -m benchmarks.predicting keras MODEL FOLDER

What a user of another library writes, to compare `keras-resnet predict` with. MODEL is a file that
`benchmarks.inference` has written; each script prints the number of its answers.
"""

import sys
from pathlib import Path

SIZE, BATCH = 224, 50  # all batches of 1,000 images are full: PyTorch compiles once


def pytorch(model: str, folder: str, precision: str) -> int:
    """PyTorch: a DataLoader with a worker for each core, channels last, compiled."""
    import os

    import numpy as np
    import PIL.Image
    import torch

    from benchmarks.contenders import torch_net

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    files = sorted(Path(folder).rglob("*.jpg"))

    class Photographs(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            image = PIL.Image.open(files[index]).convert("RGB")
            image = image.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    module = torch_net("ResNet50")
    module.load_state_dict(torch.load(model, weights_only=True))
    module = module.eval().to(memory_format=torch.channels_last)
    forward = torch.compile(module)
    loader = torch.utils.data.DataLoader(Photographs(), batch_size=BATCH, num_workers=cores)
    answers = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
        for images in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            answers.append(forward(images).float().softmax(-1).numpy())
    return len(np.concatenate(answers))


def keras_applications(model: str, folder: str) -> int:
    """Keras: `image_dataset_from_directory`, and `predict`."""
    import keras

    images = keras.utils.image_dataset_from_directory(
        folder,
        **dict(labels=None, shuffle=False, verbose=False),
        **dict(image_size=(SIZE, SIZE), batch_size=BATCH),
    )
    images = images.map(keras.applications.resnet.preprocess_input)
    net = keras.applications.ResNet50(weights=model)
    return len(net.predict(images, verbose=0))


if __name__ == "__main__":
    print({"torch": pytorch, "keras": keras_applications}[sys.argv[1]](*sys.argv[2:]))
