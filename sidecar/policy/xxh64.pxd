# The C face of the hash; what it does is written in xxh64.py.

cimport cython

cdef unsigned long long _M, _P1, _P2, _P3, _P4, _P5
cdef Py_ssize_t _STRIPE, _LANE, _HALF

@cython.locals(
    size=Py_ssize_t, place=Py_ssize_t, a=cython.ulonglong, b=cython.ulonglong, c=cython.ulonglong, d=cython.ulonglong,
    found=cython.ulonglong, octet=cython.ulonglong,
)
cpdef unsigned long long xxh64(bytes data, unsigned long long seed)
@cython.locals(at=Py_ssize_t, found=cython.ulonglong, octet=cython.ulonglong)
cdef unsigned long long _lane(bytes data, Py_ssize_t place, Py_ssize_t width)
cdef unsigned long long _turned(unsigned long long value, int bits)
cdef unsigned long long _round(unsigned long long held, unsigned long long lane)
cdef unsigned long long _merged(unsigned long long found, unsigned long long held)
