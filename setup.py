"""Builds the engine: its two halves, the second once for each instruction set.

Everything else about the package stands in pyproject.toml. Environment variables of a build:

    FASTGD_BUILD=NAMES     kernels for these instruction sets only, such as "x86-64-v3,x86-64-v4"; or
                           "native": for the best that this CPU can run
    FASTGD_OPENMP=0        without OpenMP: steps run on one thread
    FASTGD_DEBUG=1         with bounds checks and debug information
    FASTGD_SANITIZE=LIST   with -fsanitize=LIST, such as "address,undefined" or "thread"

As many files at once as there are processors, and again only those of which the source, what it includes,
or the flags have changed.
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

ENGINE = "fastgd/_engine"
HALVES = ["_runtime", "_gate", "_gather", "_rows", "_tensors", "_binding", "_plan"]  # compiled once
DEBUG = os.environ.get("FASTGD_DEBUG", "0") != "0"
SANITIZE = os.environ.get("FASTGD_SANITIZE", "")
# Instruction sets that are tried at import; where the compiler knows none there is one plain build.
ISAS = ["x86-64-v2", "x86-64-v3", "x86-64-v4"]

# -fno-math-errno, -fno-trapping-math: sqrt and comparisons vectorise. -ffp-contract=off: a fused
# operation stands where the source says fma and nowhere else. Never -ffast-math: it would set
# flush-to-zero for the whole process.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
# With more than four streams GCC gives up checking for aliases, and with it vectorising.
OPTIONAL_FLAGS = ["--param=vect-max-version-for-alias-checks=64", "--param=inline-unit-growth=1000"]
# ThreadSanitizer does not see accesses of more than 16 bytes (-O1: no vectors), and forgets a race
# whose two accesses are too far apart (teams for small steps too).
SANITIZED_FLAGS = ["-O1", "-fno-omit-frame-pointer", "-DFASTGD_EAGER_TEAMS=1"]


def compiled(folder: str, source: str, flags: list[str]) -> Path | None:
    """The program that the compiler makes of `source` with these flags, None if it cannot."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    file, program = Path(folder, "probe.c"), Path(folder, "probe")
    file.write_text(source)
    command = [
        *compiler,
        *flags,
        "-Werror",
        "-Wno-unused",
        "-Isrc_c",
        str(file),
        "-o",
        str(program),
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    return program if done.returncode == 0 else None


def compiles(flags: list[str]) -> bool:
    """Whether the compiler builds and links a program with these flags."""
    source = "#ifdef _OPENMP\n#include <omp.h>\n#endif\nint main(void) { return 0; }\n"
    with tempfile.TemporaryDirectory() as folder:
        return compiled(folder, source, flags) is not None


def level_of_this_cpu() -> int:
    """4 for x86-64-v4 and so on, 0 where it is no x86-64."""
    source = '#include "platform.h"\nint main(void) { return fastgd_x86_64_level(); }\n'
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(folder, source, [])
        return 0 if program is None else subprocess.run([program], check=False).returncode


def wanted_isas() -> list[str]:
    """The instruction sets to build for; none for the plain build."""
    known = [isa for isa in ISAS if compiles([f"-march={isa}"])]
    wanted = os.environ.get("FASTGD_BUILD", "")
    if wanted == "native":
        level = level_of_this_cpu()
        return [isa for isa in known if int(isa[-1]) <= level][-1:]
    if wanted:
        unknown = sorted({*wanted.split(",")} - {*known})
        if unknown:
            raise SystemExit(f"FASTGD_BUILD: this compiler does not know {unknown}, only {known}")
        return wanted.split(",")
    return known


def common_flags() -> tuple[list[str], list[str]]:
    """Of the compiler and of the linker."""
    openmp = (
        ["-fopenmp"] if os.environ.get("FASTGD_OPENMP") != "0" and compiles(["-fopenmp"]) else []
    )
    if not openmp:
        print("fastgd: building without OpenMP; steps will run on one thread")
    checks = [f"-fsanitize={SANITIZE}", *SANITIZED_FLAGS] if SANITIZE else []
    debug = ["-g"] if DEBUG or SANITIZE else []
    optional = [flag for flag in OPTIONAL_FLAGS if compiles([flag])]
    return [*FLAGS, *optional, *openmp, *checks, *debug], [*openmp, *checks]


def extensions() -> list[Extension]:
    flags, link_flags = common_flags()
    directives = {
        "freethreading_compatible": True,  # a gate is a lock of its own, see src_c/gate.h
        "language_level": 3,
        "cdivision": True,
        "embedsignature": True,
        "auto_pickle": False,
        "boundscheck": DEBUG,
        "wraparound": False,
        "initializedcheck": DEBUG,
    }
    # What was built with other flags or directives is built anew.
    stamp = Path("build", "fastgd-flags.txt")
    settings = f"{flags} {link_flags} {sorted(directives.items())}"
    if not stamp.exists() or stamp.read_text() != settings:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(settings)

    def extension(module: str, march: list[str]) -> Extension:
        return Extension(
            f"fastgd._engine.{module}",
            [f"{ENGINE}/{module}.pyx"],
            include_dirs=[np.get_include(), "src_c"],
            depends=[*map(str, [*Path("src_c").glob("*.h"), *Path(ENGINE).rglob("*.pxd"), stamp])],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
            extra_compile_args=[*flags, *march],
            extra_link_args=link_flags,
        )

    isas = wanted_isas()
    kernels = {isa: [f"-march={isa}"] for isa in isas} or {"plain": []}
    return cythonize(
        [
            *(extension(module, []) for module in HALVES),
            *(
                extension(f"_kernels_{isa.replace('-', '_')}", march)
                for isa, march in kernels.items()
            ),
        ],
        compiler_directives=directives,
        build_dir=f"build/cython{'-debug' if DEBUG else ''}",
    )


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
