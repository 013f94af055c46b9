"""The sets of TensorFlow Datasets with names of their own, and all others as `tfds:NAME`."""

from soar_tf.datasets import tfds_source
from soar_tf.datasets.source import Source


def _open(request):
    return tfds_source.load(
        request.place or request.name,
        request.splits,
        request.data_dir,
        request.reading,
        request.memory_limit,
        display=request.name,
    )


CIFAR10 = Source("32x32x3, 10 classes, 60,000 photographs (TFDS); no licence stated", _open)
CIFAR100 = Source("32x32x3, 100 classes, 60,000 photographs (TFDS); no licence stated", _open)
MNIST = Source("28x28x1, 10 classes, 70,000 handwritten digits (TFDS); CC BY-SA 3.0", _open)
FASHION_MNIST = Source("28x28x1, 10 classes, 70,000 pieces of clothing (TFDS); MIT", _open)
SVHN_CROPPED = Source("32x32x3, 10 classes, 99,289 house numbers (TFDS); non-commercial use", _open)
TFDS = Source("any image-classification set of TensorFlow Datasets", _open)
