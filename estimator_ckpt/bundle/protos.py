"""The protobuf messages of a checkpoint, without TensorFlow.

They are made at run time in a descriptor pool of their own, so that they never meet TensorFlow's
messages of the same name in the default pool. Only the wire format counts: enums are int32 here,
and `BoolValue` is a message like any other.

Sources: tensor_bundle.proto and trackable_object_graph.proto in tensorflow/core/protobuf;
saved_tensor_slice.proto in tensorflow/core/util;
tensor_shape.proto, tensor_slice.proto and versions.proto in tensorflow/core/framework;
tensorflow/python/training/checkpoint_state.proto; meta_graph.proto and saver.proto in
tensorflow/core/protobuf, node_def.proto, attr_value.proto and tensor.proto in
tensorflow/core/framework; tensorflow/core/util/event.proto. TensorFlow 2.12, 2.15 and 2.21 have the
same.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Message -> its fields: number, type, name; "*" repeats, "?" knows whether it is set.
_SCHEMA = {
    "VersionDef": ["1 int32 producer", "2 int32 min_consumer", "3 *int32 bad_consumers"],
    # `mark` is this package's own; TensorFlow passes over a field that it does not know.
    "BundleHeader": [
        "1 int32 num_shards",
        "2 int32 endianness",
        "3 VersionDef version",
        "20262 bytes mark",
    ],
    "Dim": ["1 int64 size", "2 string name"],
    "TensorShape": ["2 *Dim dim", "3 bool unknown_rank"],
    "Extent": ["1 int64 start", "2 ?int64 length"],
    "TensorSlice": ["1 *Extent extent"],
    "BundleEntry": [
        "1 int32 dtype",
        "2 TensorShape shape",
        "3 int32 shard_id",
        "4 int64 offset",
        "5 int64 size",
        "6 fixed32 crc32c",
        "7 *TensorSlice slices",
    ],
    # Entries one behind the other, read as one message that has the same fields of all in a row.
    "BundleEntryColumns": [
        "1 *int32 dtype",
        "2 *bytes shape",
        "3 *int32 shard_id",
        "4 *int64 offset",
        "5 *int64 size",
        "6 *fixed32 crc32c",
        "7 *bytes slices",
    ],
    # Of the V1 format. A slice's values, SavedTensorSlices.data, are never parsed whole: see v1.py.
    "SavedSliceMeta": [
        "1 bytes name",
        "2 TensorShape shape",
        "3 int32 type",
        "4 *TensorSlice slice",
    ],
    "SavedTensorSliceMeta": ["1 *SavedSliceMeta tensor", "2 VersionDef versions"],
    "SavedTensorSlices": ["1 SavedTensorSliceMeta meta"],
    "ObjectReference": ["1 int32 node_id", "2 string local_name"],
    "SerializedTensor": ["1 string name", "2 string full_name", "3 string checkpoint_key"],
    "SlotVariableReference": [
        "1 int32 original_variable_node_id",
        "2 string slot_name",
        "3 int32 slot_variable_node_id",
    ],
    "RegisteredSaver": ["1 string name", "2 string object_name"],
    "BoolValue": ["1 bool value"],
    "TrackableObject": [
        "1 *ObjectReference children",
        "2 *SerializedTensor attributes",
        "3 *SlotVariableReference slot_variables",
        "4 RegisteredSaver registered_saver",
        "5 BoolValue has_checkpoint_values",
    ],
    # The same, but for what is in its parts.
    "ObjectParts": [
        "1 *bytes children",
        "2 *bytes attributes",
        "3 *bytes slot_variables",
        "4 *bytes registered_saver",
        "5 BoolValue has_checkpoint_values",
    ],
    # Objects one behind the other, read as one message that has the same fields of all in a row.
    "MergedObjects": ["1 ObjectReferences children", "2 SerializedTensors attributes"],
    "ObjectReferences": ["1 *int32 node_id", "2 *string local_name"],
    "SerializedTensors": ["1 *string name", "2 *string full_name", "3 *string checkpoint_key"],
    "TrackableObjectGraph": ["1 *bytes nodes"],  # each a TrackableObject, see objects/message.py
    # Of a .meta file, what tells the keys that its Saver restores.
    "MetaGraph": ["2 Graph graph_def", "3 SaverDef saver_def"],
    "SaverDef": ["3 bytes restore_op_name"],
    "Graph": ["1 *GraphNode node"],
    "GraphNode": ["1 bytes name", "2 bytes op", "3 *bytes input", "5 *GraphAttribute attr"],
    "GraphAttribute": ["1 bytes key", "2 GraphValue value"],
    "GraphValue": ["8 GraphTensor tensor"],
    "GraphTensor": ["2 TensorShape tensor_shape", "8 *bytes string_val"],
    # Of a .meta file or saved_model.pb, what people ask of it.
    "SavedModelFacts": ["2 *MetaGraphFacts meta_graphs"],
    "MetaGraphFacts": [
        "1 MetaInfo meta_info_def",
        "4 *Collection collection_def",
        "5 *Signature signature_def",
        "6 *AssetFile asset_file_def",
        "7 SavedObjects object_graph_def",
    ],
    "MetaInfo": ["4 *string tags", "5 string tensorflow_version"],
    "Collection": ["1 string key", "2 CollectionValues value"],
    "CollectionValues": ["2 BytesList bytes_list"],
    "BytesList": ["1 *bytes value"],
    "VariableDef": ["1 string variable_name", "4 SaveSliceInfo save_slice_info_def"],
    "SaveSliceInfo": ["1 string full_name"],
    "Signature": ["1 string key", "2 SignatureTensors value"],
    "SignatureTensors": ["1 *SignatureTensor inputs", "2 *SignatureTensor outputs"],
    "SignatureTensor": ["1 string key"],
    "AssetFile": ["2 string filename"],
    "SavedObjects": ["1 *SavedObject nodes"],
    "SavedObject": ["7 SavedVariable variable"],
    "SavedVariable": ["3 bool trainable", "6 string name"],
    # Of an event file, what tells of a checkpoint.
    "EventFacts": ["1 double wall_time", "7 SessionLog session_log"],
    "SessionLog": ["1 int32 status", "2 string checkpoint_path"],
    "CheckpointState": [
        "1 string model_checkpoint_path",
        "2 *string all_model_checkpoint_paths",
        "3 *double all_model_checkpoint_timestamps",
        "4 double last_preserved_timestamp",
    ],
}

_PACKAGE = "estimator_ckpt"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "fixed32": _Field.TYPE_FIXED32,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="estimator_ckpt/bundle.proto", package=_PACKAGE, syntax="proto3"
    )
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for text in fields:
            number, kind, name = text.split()
            field = message.field.add(name=name, number=int(number))
            field.label = _Field.LABEL_REPEATED if kind[0] == "*" else _Field.LABEL_OPTIONAL
            if kind[0] == "?":
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"has_{name}")
            kind = kind.lstrip("*?")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = _Field.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def _message(name: str) -> Any:
    descriptor = _pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool).GetPrototype(descriptor)  # protobuf < 4.22


BundleHeader = _message("BundleHeader")
BundleEntry = _message("BundleEntry")
BundleEntryColumns = _message("BundleEntryColumns")
TensorShape = _message("TensorShape")
SavedTensorSlices = _message("SavedTensorSlices")
TrackableObject = _message("TrackableObject")
ObjectParts = _message("ObjectParts")
MergedObjects = _message("MergedObjects")
TrackableObjectGraph = _message("TrackableObjectGraph")
CheckpointState = _message("CheckpointState")
EventFacts = _message("EventFacts")
MetaGraph = _message("MetaGraph")
MetaGraphFacts = _message("MetaGraphFacts")
SavedModelFacts = _message("SavedModelFacts")
VariableDef = _message("VariableDef")
