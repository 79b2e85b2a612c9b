"""Sends requests (`method hex` a line, on standard input) to an etcd, and prints its answers.

Usage: record.py HOST:PORT, with the package `grpcio`. See `tests/etcd.rs`.
"""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
for line in sys.stdin:
    if line.split(" ")[0] not in ("Range", "Put", "DeleteRange", "Txn", "Compact"):
        continue  # The test harness's own lines.
    method, request = line.rstrip("\n").split(" ")
    call = channel.unary_unary(f"/etcdserverpb.KV/{method}")
    try:
        print(method, request, "ok", call(bytes.fromhex(request)).hex())
    except grpc.RpcError as error:
        print(method, request, error.code().value[0], error.details())
