"""What scripts want installed: found out, installed once, lent to jobs, and cleared away when nobody wants it.

    requirements ── resolve ──▶ lock ── build (once for all who want it) ──▶ environment ── lend ──▶ job
      of the text     uv          text of exact     uv, wheels only             a folder, read-only
                                  versions, hashes

    CACHE/uv/                          uv's own cache; environments are hard links into it
    CACHE/resolutions/<digest>         locks of scripts that have none of their own, for a while
    CACHE/environments/<digest>/       one environment: `complete`, and the folder of its libraries
    CACHE/environments/tmp-<digest>-*  being built; if nobody holds the lock, left behind by one that was killed
    CACHE/locks/<digest>               held shared by who uses the environment, exclusive by who builds or removes it

Nothing of a package runs here: wheels are only unpacked. An environment appears by one rename when it is complete.
The folder of libraries has another name each time it is built, so that no zygote looks at one that was removed since.
"""
