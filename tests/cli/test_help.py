import subprocess
import sys


def test_help_answers_without_tensorflow():
    script = (
        "import sys; from keras_resnet.cli import main; main(['--help'], standalone_mode=False)"
    )
    check = "; print('tensorflow' in sys.modules, 'keras' in sys.modules, 'numpy' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script + check], capture_output=True, text=True, check=True
    )
    assert process.stdout.endswith("False False False\n")
    assert "Usage:" in process.stdout
