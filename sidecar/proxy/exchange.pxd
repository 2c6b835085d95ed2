# The C face of an exchange; what it does is written in exchange.py.

cimport cython

from sidecar.http2.interface cimport HeaderBlock, Stream, StreamSink
from sidecar.policy.balancer cimport PickContext
from sidecar.policy.endpoint cimport Endpoint
from sidecar.policy.method cimport MethodPolicy
from sidecar.proxy.attempt cimport Attempt
from sidecar.proxy.deadline cimport Deadline
from sidecar.proxy.dispatch cimport Dispatch
from sidecar.proxy.downstream cimport DownstreamConnection
from sidecar.proxy.engine cimport Engine
from sidecar.proxy.relay cimport Relay
from sidecar.proxy.replay cimport Replay
from sidecar.proxy.rider cimport Rider
from sidecar.proxy.upstream cimport UpstreamConnection
from sidecar.rpc.metadata cimport RequestHead, ResponseHead, build_request, read_request, read_response, \
    status_of_answer

cdef int WAITING, ATTEMPTING, RESPONDING, DONE
cdef int SEND, RETRY, HEAD, END, ILLEGAL
cdef tuple TABLE
cdef int _OK, _SUCCESS
cdef str FIRST
cdef StreamSink DEAF


cdef class Exchange(Rider):
    cdef public DownstreamConnection connection
    cdef public Engine engine
    cdef public Dispatch dispatch
    cdef public Stream stream
    cdef public HeaderBlock block
    cdef public RequestHead head
    cdef public MethodPolicy policy
    cdef public int state
    cdef public object gate
    cdef public bint queued
    cdef public object recourse
    cdef public object lifetime
    cdef public str why
    cdef public double started_at
    cdef public double deadline_at
    cdef public Deadline deadline
    cdef public Attempt attempt
    cdef public Attempt last
    cdef public int attempts
    cdef public tuple tried
    cdef public list history
    cdef public bint refused_once
    cdef public int http_status
    cdef public int status
    cdef public str text
    cdef public Relay request
    cdef public Relay response

    @cython.locals(replay=Replay, request=Relay)
    cpdef object begin(self, DownstreamConnection connection, Stream stream, HeaderBlock block)

    # The app's stream.
    cpdef object on_data(self, bytes data, bint end_stream)
    cpdef bint on_part(self, bytes whole, Py_ssize_t offset, Py_ssize_t size, bint end_stream) except -1
    cpdef object on_trailers(self, HeaderBlock block)
    cpdef object on_reset(self, unsigned int error_code, bint remote)
    cpdef object on_window(self)

    # From the app to an attempt.
    @cython.locals(dispatch=Dispatch)
    cpdef object start(self, bint end_stream)
    @cython.locals(dispatch=Dispatch, context=PickContext, connection=UpstreamConnection)
    cpdef object try_attempt(self)
    @cython.locals(block=HeaderBlock, attempt=Attempt, ended=bint, stream=Stream)
    cpdef bint _send(self, Endpoint endpoint, UpstreamConnection connection) except -1
    cpdef object close_attempt(self, Attempt attempt, int outcome, int status, str detail=*)
    cpdef object note_failed(self, Attempt attempt)
    cpdef object retry(self, str why, double delay)

    # From an attempt to the app.
    cpdef object on_informational(self, HeaderBlock block)
    @cython.locals(response=ResponseHead, response_relay=Relay)
    cpdef object on_response_head(self, Attempt attempt, HeaderBlock block, bint end_stream)
    @cython.locals(relay=Relay)
    cpdef object on_response_data(self, Attempt attempt, bytes data, bint end_stream)
    @cython.locals(relay=Relay)
    cpdef bint on_response_part(self, bytes whole, Py_ssize_t offset, Py_ssize_t size) except -1
    @cython.locals(relay=Relay)
    cpdef object on_response_trailers(self, Attempt attempt, HeaderBlock block)
    @cython.locals(status=int, outcome=int)
    cpdef object _record_answer(self, Attempt attempt, ResponseHead response)
    cpdef object _maybe_end(self, Relay response)
    cpdef object on_relay_finished(self, Relay relay)

    # The machine and its end.
    @cython.locals(state=int, row=tuple)
    cpdef object _move(self, int event)
    @cython.locals(engine=Engine, dispatch=Dispatch, stream=Stream, seconds=double)
    cpdef object _end(self, int status, str text)
