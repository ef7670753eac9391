"""What a fit ran on, and what it took of it."""

from __future__ import annotations

import ctypes
import platform
import resource
from functools import cache
from pathlib import Path
from typing import Any

import torch

BYTES_PER_GB = 1e9
JOULES_PER_KWH = 3.6e6
CPU_INFO = Path("/proc/cpuinfo")


def used_hardware(energy_j: float | None) -> dict[str, Any]:
    """Describe this process's devices for a report.

    Args:
        energy_j: That the fit took, if it could be read.

    Returns:
        Name of the device, number of GPUs that this machine gives, peak memory of this process (of its GPU, where it
        has one), and the energy, where it is known.
    """
    gpu = torch.cuda.is_available()
    taken = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    known = {} if energy_j is None else {"energy_kwh": energy_j / JOULES_PER_KWH}
    return {
        "device": torch.cuda.get_device_name() if gpu else cpu_name(),
        "gpus": torch.cuda.device_count() if gpu else 0,
        "peak_memory_gb": taken / BYTES_PER_GB,
        **known,
    }


def cpu_name() -> str:
    """The processor's model, which Python alone does not know on Linux."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "cpu"


def machine_energy_j() -> float | None:
    """Energy that this machine's GPUs have taken since some moment; differences count.

    Other work on the same GPUs is in it. None where no counter can be read, as of CPUs: only root may read theirs, and
    they start anew within the hour.
    """
    if not torch.cuda.is_available():
        return None
    library = _management_library()
    if library is None:
        return None
    total_mj = 0
    for number in range(torch.cuda.device_count()):
        name = f"GPU-{torch.cuda.get_device_properties(number).uuid}".encode()
        handle, taken_mj = ctypes.c_void_p(), ctypes.c_ulonglong()
        if library.nvmlDeviceGetHandleByUUID(name, ctypes.byref(handle)):
            return None
        if library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(taken_mj)):
            return None
        total_mj += taken_mj.value
    return total_mj / 1e3


@cache
def _management_library() -> ctypes.CDLL | None:
    """NVIDIA's management library, which comes with the driver."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return None if library.nvmlInit_v2() else library
