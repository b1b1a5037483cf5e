from numpy import int64
from numpy.typing import NDArray

def segments(
    indices: NDArray[int64], rows: int
) -> tuple[NDArray[int64], NDArray[int64], NDArray[int64]]: ...
