"""Builds the engine: _runtime once, _kernels once for each instruction set.

Everything else about the package stands in pyproject.toml. Environment variables of a build:

    FASTGD_OPENMP=0        without OpenMP: steps run on one thread
    FASTGD_DEBUG=1         with bounds checks and debug information
    FASTGD_SANITIZE=LIST   with -fsanitize=LIST, such as "address,undefined" or "thread"
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ENGINE = "fastgd/_engine"
DEBUG = os.environ.get("FASTGD_DEBUG", "0") != "0"
SANITIZE = os.environ.get("FASTGD_SANITIZE", "")
# Instruction sets that are tried at import; where the compiler knows none there is one plain build.
ISAS = ["x86_64_v4", "x86_64_v3", "x86_64_v2"]

# -fno-math-errno, -fno-trapping-math: sqrt and comparisons vectorise. -ffp-contract=off: a fused
# operation stands where the source says fma and nowhere else. Never -ffast-math: it would set
# flush-to-zero for the whole process.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
# With more than four streams GCC gives up checking for aliases, and with it vectorising.
OPTIONAL_FLAGS = ["--param=vect-max-version-for-alias-checks=64"]
# ThreadSanitizer does not see accesses of more than 16 bytes (-O1: no vectors), and forgets a race
# whose two accesses are too far apart (teams for small steps too).
SANITIZED_FLAGS = ["-O1", "-fno-omit-frame-pointer", "-DFASTGD_EAGER_TEAMS=1"]


def march(isa: str | None) -> list[str]:
    return [f"-march={isa.replace('_', '-')}"] if isa else []


def compiles(flags: list[str]) -> bool:
    """Whether the compiler builds and links a program with these flags."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(
            "#ifdef _OPENMP\n#include <omp.h>\n#endif\nint main(void) { return 0; }\n"
        )
        command = [*compiler, *flags, "-Werror", str(source), "-o", str(source.with_suffix(""))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def kernel_module(isa: str | None) -> str:
    return f"_kernels_{isa}" if isa else "_kernels_plain"


def extensions() -> list[Extension]:
    common = {
        "include_dirs": [np.get_include(), "src_c"],
        "depends": [
            str(path) for path in (*Path("src_c").glob("*.h"), *Path(ENGINE).glob("*.pxd"))
        ],
        "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    }
    runtime, kernels = cythonize(
        [
            Extension("fastgd._engine._runtime", [f"{ENGINE}/_runtime.pyx"], **common),
            Extension("fastgd._engine._kernels", [f"{ENGINE}/_kernels.pyx"], **common),
        ],
        compiler_directives={
            "language_level": 3,
            "cdivision": True,
            "embedsignature": True,
            "auto_pickle": False,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
        },
        force=True,  # the directives are no part of what cythonize looks at
    )
    builds = []
    for isa in [isa for isa in ISAS if compiles(march(isa))] or [None]:
        # One C file, compiled under several names: the init function is renamed to match.
        module = kernel_module(isa)
        build = Extension(f"fastgd._engine.{module}", kernels.sources, **common)
        build.define_macros = [*common["define_macros"], ("PyInit__kernels", f"PyInit_{module}")]
        build.extra_compile_args = march(isa)
        builds.append(build)
    return [runtime, *builds]


class BuildEngine(build_ext):
    """Adds the flags that this compiler understands, and keeps the objects of the builds apart."""

    def build_extensions(self) -> None:
        flags = FLAGS + [flag for flag in OPTIONAL_FLAGS if compiles([flag])]
        openmp = (
            ["-fopenmp"]
            if os.environ.get("FASTGD_OPENMP") != "0" and compiles(["-fopenmp"])
            else []
        )
        if not openmp:
            print("fastgd: building without OpenMP; steps will run on one thread")
        checks = [f"-fsanitize={SANITIZE}", *SANITIZED_FLAGS] if SANITIZE else []
        debug = ["-g"] if DEBUG or SANITIZE else []
        for extension in self.extensions:
            extension.extra_compile_args = [
                *flags,
                *openmp,
                *checks,
                *debug,
                *extension.extra_compile_args,
            ]
            extension.extra_link_args = [*openmp, *checks]
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        shared, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildEngine})
