"""Runs the code on stdin as the cell of a notebook in a kernel of this Python.

Prints a JSON list: the outputs of the cell, and the states of the widgets.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class Own(KernelSpecManager):  # type: ignore[misc]
    """Whichever kernels are registered on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> Any:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


cell = nbformat.v4.new_code_cell(sys.stdin.read())
manager = AsyncKernelManager(kernel_spec_manager=Own(), kernel_name="own")
client = NotebookClient(nbformat.v4.new_notebook(cells=[cell]), km=manager, timeout=120)
client.execute()
json.dump([cell.outputs, list(client.widget_state.values())], sys.stdout)
