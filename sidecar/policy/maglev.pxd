# The C face of the filling of the table; what it does is written in maglev.py.

cimport cython

from sidecar.policy.xxh64 cimport xxh64


@cython.locals(
    table=list, taken=bytearray, places=list, credits=list, free=Py_ssize_t, owner=Py_ssize_t, place=Py_ssize_t,
    skip=Py_ssize_t, credit=double,
)
cpdef list fill(Py_ssize_t size, list turns, list offsets, list skips, list shares)
