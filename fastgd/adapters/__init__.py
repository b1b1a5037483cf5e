"""Bridges to other libraries, one module for each, imported only when asked for.

from fastgd.adapters import torch        # needs pip install "fastgd[torch]"
"""
