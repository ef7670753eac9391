"""What runs in environments of its own is not collected here."""

collect_ignore = ["registration_ants.py"]
