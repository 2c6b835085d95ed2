# The C face of grpc-timeout; what it does is written in deadline.py.

cimport cython

cdef double _MOST

cpdef object parse_timeout(bytes value)
@cython.locals(unit=double, scaled=double, count=cython.longlong, letter=str)
cpdef bytes encode_timeout(double seconds)
