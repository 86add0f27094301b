"""What runs on the inside: the zygote, its children and the job. Standard library only.

The worker starts this folder with `python -I -S` as the package `inside`, so nothing here may import `tidemill`
and every import between these files is relative. Everything must be imported before the zygote leaves the host's
file system: afterwards this folder is out of sight, for us and for user code.
"""
