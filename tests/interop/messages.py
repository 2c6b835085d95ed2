"""The messages of the gRPC interoperability service (grpc.testing), built at run time; no generated code."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "grpc.testing"
SERVICE = "grpc.testing.TestService"

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "int32": _FIELD.TYPE_INT32,
    "string": _FIELD.TYPE_STRING,
}
# message -> ((number, name, type, repeated), ...), as numbered by the interoperability service
_MESSAGES: dict[str, tuple[tuple[int, str, str, bool], ...]] = {
    "Empty": (),
    "BoolValue": ((1, "value", "bool", False),),
    "Payload": ((2, "body", "bytes", False),),
    "EchoStatus": ((1, "code", "int32", False), (2, "message", "string", False)),
    "SimpleRequest": (
        (2, "response_size", "int32", False),
        (3, "payload", "Payload", False),
        (6, "response_compressed", "BoolValue", False),
        (7, "response_status", "EchoStatus", False),
    ),
    "SimpleResponse": ((1, "payload", "Payload", False),),
    "ResponseParameters": ((1, "size", "int32", False), (2, "interval_us", "int32", False)),
    "StreamingInputCallRequest": ((1, "payload", "Payload", False),),
    "StreamingInputCallResponse": ((1, "aggregated_payload_size", "int32", False),),
    "StreamingOutputCallRequest": (
        (2, "response_parameters", "ResponseParameters", True),
        (3, "payload", "Payload", False),
        (7, "response_status", "EchoStatus", False),
    ),
    "StreamingOutputCallResponse": ((1, "payload", "Payload", False),),
}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="interop.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            entry = message.field.add(name=field, number=number, label=label)
            if kind in _SCALARS:
                entry.type = _SCALARS[kind]
            else:
                entry.type = _FIELD.TYPE_MESSAGE
                entry.type_name = f".{PACKAGE}.{kind}"
    return file


_classes = message_factory.GetMessages([_describe()], pool=descriptor_pool.DescriptorPool())


def _class(name: str) -> Any:
    return _classes[f"{PACKAGE}.{name}"]


Empty = _class("Empty")
BoolValue = _class("BoolValue")
Payload = _class("Payload")
EchoStatus = _class("EchoStatus")
SimpleRequest = _class("SimpleRequest")
SimpleResponse = _class("SimpleResponse")
ResponseParameters = _class("ResponseParameters")
StreamingInputCallRequest = _class("StreamingInputCallRequest")
StreamingInputCallResponse = _class("StreamingInputCallResponse")
StreamingOutputCallRequest = _class("StreamingOutputCallRequest")
StreamingOutputCallResponse = _class("StreamingOutputCallResponse")
