"""Are the official files of Fashion-MNIST here, or can they be fetched? Says what is wrong in
one message."""

import sys
import warnings

from fashion_proto.data import load_fashion_mnist

warnings.simplefilter("error", UserWarning)
try:
    load_fashion_mnist()
except UserWarning as e:
    sys.exit(
        f"{e}\nThe book and its tests are about the official files: "
        "unset FASHION_MNIST_DIR, or name a folder that has those."
    )
except (OSError, ValueError) as e:
    sys.exit(str(e))
