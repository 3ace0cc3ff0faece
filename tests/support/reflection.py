"""A gRPC client that knows no stub: it asks the server what there is, as grpcurl does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha import reflection_pb2 as pb
from grpc_reflection.v1alpha import reflection_pb2_grpc


class Reflected:
    """Lists, describes and calls what one server offers; messages are JSON."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._pool = descriptor_pool.DescriptorPool()
        self._stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def services(self) -> list[str]:
        """`grpcurl <target> list`."""
        answer = await self._ask(pb.ServerReflectionRequest(list_services=""))
        return [service.name for service in answer.list_services_response.service]

    async def describe(self, symbol: str) -> descriptor_pb2.FileDescriptorProto:
        """`grpcurl <target> describe <symbol>`: the file in which it stands.

        Raises KeyError when the server has no such symbol.
        """
        answer = await self._ask(pb.ServerReflectionRequest(file_containing_symbol=symbol))
        if answer.HasField("error_response"):
            raise KeyError(symbol)
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(serialized)
            for serialized in answer.file_descriptor_response.file_descriptor_proto
        ]
        for file in reversed(files):  # what a file imports comes after it
            self._pool.Add(file)
        return files[0]

    async def method(self, name: str) -> MethodDescriptor:
        """The descriptor of `package.Service/Method`."""
        service, _, method = name.partition("/")
        await self.describe(service)
        return self._pool.FindServiceByName(service).methods_by_name[method]

    async def call(self, name: str, request: str) -> AsyncIterator[dict[str, Any]]:
        """`grpcurl -d <request> <target> <name>`: each answer, as JSON shows it."""
        method = await self.method(name)
        message = json_format.Parse(request, _class(method.input_type)())
        kind = "unary_stream" if method.server_streaming else "unary_unary"
        answer_class = _class(method.output_type)
        rpc = getattr(self._channel, kind)(
            f"/{name}",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=answer_class.FromString,
        )
        if method.server_streaming:
            async for answer in rpc(message, timeout=30):
                yield json_format.MessageToDict(answer)
        else:
            yield json_format.MessageToDict(await rpc(message, timeout=30))

    async def _ask(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        async for answer in self._stub.ServerReflectionInfo(iter((request,)), timeout=30):
            return answer
        raise AssertionError("the server's reflection said nothing")


def _class(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)
