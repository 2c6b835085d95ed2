/* Reference counts without a branch for immortal objects; every compiled module includes this first (setup.py).

   Since Python 3.12 None, True and False are immortal: their count never changes, and CPython's Py_INCREF and Py_DECREF
   jump over the store. Here nearly every field that is unused holds None, so one RPC meets hundreds of such jumps, and a
   proxy that waits between two RPCs comes back to a processor that foresees none of them. The count is computed instead
   and stored in either case; an immortal one is stored as it was.

   The layout is that of 3.12 and 3.13 on 64 bits with the GIL (object.h there). Any other build keeps CPython's own.
   docs/decisions/0020 has what it saves. */

#ifndef SIDECAR_REFCOUNT_H
#define SIDECAR_REFCOUNT_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>

#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000 && SIZEOF_VOID_P > 4 \
    && !defined(Py_GIL_DISABLED) && !defined(Py_REF_DEBUG) && !defined(Py_STATS) && !defined(Py_LIMITED_API)

/* Whether the compiler sees that it is None: then there is nothing to count. */
#define SIDECAR_IS_NONE(object) (__builtin_constant_p((object) == Py_None) && (object) == Py_None)

static inline Py_ALWAYS_INLINE void sidecar_incref(PyObject* object) {
    if (SIDECAR_IS_NONE(object)) {
        return;
    }
    uint32_t count = object->ob_refcnt_split[PY_BIG_ENDIAN];
    object->ob_refcnt_split[PY_BIG_ENDIAN] = count + (count != UINT32_MAX); /* saturates, as Py_INCREF does */
}

static inline Py_ALWAYS_INLINE void sidecar_decref(PyObject* object) {
    if (SIDECAR_IS_NONE(object)) {
        return;
    }
    uint32_t count = object->ob_refcnt_split[PY_BIG_ENDIAN];
    count -= ~count >> 31; /* the highest bit: immortal */
    object->ob_refcnt_split[PY_BIG_ENDIAN] = count;
    if (__builtin_expect(count == 0, 0)) {
        _Py_Dealloc(object);
    }
}

static inline Py_ALWAYS_INLINE void sidecar_xincref(PyObject* object) {
    if (object != NULL) {
        sidecar_incref(object);
    }
}

static inline Py_ALWAYS_INLINE void sidecar_xdecref(PyObject* object) {
    if (object != NULL) {
        sidecar_decref(object);
    }
}

#undef Py_INCREF
#undef Py_DECREF
#undef Py_XINCREF
#undef Py_XDECREF
#define Py_INCREF(object) sidecar_incref(_PyObject_CAST(object))
#define Py_DECREF(object) sidecar_decref(_PyObject_CAST(object))
#define Py_XINCREF(object) sidecar_xincref(_PyObject_CAST(object))
#define Py_XDECREF(object) sidecar_xdecref(_PyObject_CAST(object))

#endif
#endif
