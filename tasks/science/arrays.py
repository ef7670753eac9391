"""Shapes of the arrays that science functions take and return, in one place; checked in tests only.

Volumes are indexed (i, j, k). Affines map voxel indices to RAS+ millimetres, as nibabel's do.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

Volume = Float[np.ndarray, "i j k"]
Mask = Bool[np.ndarray, "i j k"]
Affine = Float[np.ndarray, "4 4"]
Channels = Float[np.ndarray, "channels i j k"]
Points = Float[np.ndarray, "n 3"]
AnyVolume = Shaped[np.ndarray, "i j k"]
