"""Devices and graphs in, latency records out."""

from profiler.campaign import CampaignSummary, Progress, WorkItem, run_campaign
from profiler.devices import Device, DeviceRow, available_devices, open_device
from profiler.forecast import Forecast, dry_run
from profiler.protocol import Plan

__all__ = [
    "CampaignSummary",
    "Device",
    "DeviceRow",
    "Forecast",
    "Plan",
    "Progress",
    "WorkItem",
    "available_devices",
    "dry_run",
    "open_device",
    "run_campaign",
]
