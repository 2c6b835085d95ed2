# The C face of an outlet; what it does is written in outlet.py.


cdef class Outlet:
    cdef object transport

    cpdef object write(self, bytes data)
    cpdef object shut(self)
