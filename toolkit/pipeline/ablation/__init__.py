"""``bench --ablate``: what each optimization of a deployment is worth on this machine.

:mod:`ladder` derives the deployments, :mod:`running` builds, serves and measures them in turn.
"""
