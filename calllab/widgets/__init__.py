"""Live panel and charts for JupyterLab."""

from __future__ import annotations

from calllab.widgets.chart import LiveChart, Series
from calllab.widgets.panel import Panel
from calllab.widgets.slider import LiveSlider

__all__ = ["LiveChart", "LiveSlider", "Panel", "Series"]
