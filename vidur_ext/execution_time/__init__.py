"""Execution times by a roofline: operators, devices and tables; pure numbers."""
