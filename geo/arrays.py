"""Types of the arrays that maps are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Shapes = NDArray[np.object_]
Float32 = NDArray[np.float32]
