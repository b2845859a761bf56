"""Devices and graphs in, latency records out."""

from netlathe.profiler.campaign import CampaignSummary, Progress, WorkItem, run_campaign
from netlathe.profiler.devices import Device, DeviceRow, available_devices, open_device
from netlathe.profiler.forecast import Forecast, dry_run
from netlathe.profiler.protocol import Plan

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
