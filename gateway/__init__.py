"""Backup gateway: reduces, encrypts and keeps backups in S3 and Glacier. The rooms are listed in README.md."""

__version__ = "0.1.0.dev0"
