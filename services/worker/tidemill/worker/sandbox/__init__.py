"""Runs user code where it can reach nothing of ours: one zygote a workspace and environment, one child a job."""
