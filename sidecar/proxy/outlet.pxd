# The C face of an outlet; what it does is written in outlet.py.


cdef class Outlet:
    cpdef object write(self, bytes data)


cdef class TransportOutlet(Outlet):
    cdef object transport

    cpdef object write(self, bytes data)
