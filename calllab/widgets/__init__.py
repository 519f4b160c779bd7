"""Live panel and charts for JupyterLab."""

from __future__ import annotations

from calllab.widgets.chart import LiveChart, Series
from calllab.widgets.panel import Panel

__all__ = ["LiveChart", "Panel", "Series"]
