"""Runs the notebooks in `docs/notebooks/` and stores their outputs: `make notebooks`.

TensorFlow's start-up messages (stderr) and execution times are left out, so that a notebook changes
only where what it shows has changed.
"""

import os
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS_PER_CELL = 300


def executed(path, folder):
    """Runs a notebook from its start in a fresh kernel.

    Args:
        path: The notebook.
        folder: Working directory of the kernel.

    Returns:
        The notebook with its new outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as sockets:
        # Sockets in a folder: the kernel's messages stay off the network.
        kernel = AsyncKernelManager(transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(
            notebook, kernel, timeout=SECONDS_PER_CELL, resources=resources, record_timing=False
        )
        client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)  # the reader's Python, not the notebook's
    return notebook


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(executed(path, FOLDER), path)
        print(path)
