"""Every cap on what bytes from outside may ask for, each with its reason (specification section 9)."""

from __future__ import annotations

MAX_DIMS = 8
"""Axes of a chunk. Medical images have at most seven (NIfTI)."""

MAX_CHUNK_VALUES = 1 << 27
"""Values in one chunk: 1 GiB of float64, and an index into it fits 32 bits."""

MAX_LAYERS = 16
"""Hidden layers of a network."""

MAX_WIDTH = 256
"""Units in a hidden layer."""

MAX_PARAMETERS = 1 << 22
"""Parameters of one network."""

MAX_PARAMETERS_PER_BYTE = 64
"""Parameters a payload byte may stand for: allocation has to be earned by input."""

MAX_NETWORK_INPUTS = 4096
"""Values that a network may take at a point, where they are no coordinates: a neighbourhood of 16 x 16 x 16."""

MAX_NETWORK_MAGNITUDE = (1 << 15) - 1
"""Largest magnitude of such a value."""

MAX_SYMBOL = 1023
"""Largest magnitude of a coded weight; a 14-bit frequency table holds all of them."""

EXACT_FLOAT32 = 1 << 24
"""Integers up to here are exact in float32, so are their sums in any order."""

EXACT_FLOAT64 = 1 << 53
"""The same of float64."""

EXACT_SUM = 1 << 52
"""Sums inside a network stay below: with what rounding adds they are exact in float64, and in JavaScript."""

MAX_PREDICTOR_BITS = 40
"""Bits of an integer in a matrix of the predictor: sums of a row of them fit 64 bits."""

MAX_RICE_BITS = 34
"""Low bits of an integer in Rice code; with quotients below 64 it has no more bits than others."""

MAX_PREDICTOR_RANGE = 65535
"""Largest minus smallest value that the predictor codes: products with weights fit 32 bits."""

MAX_PREDICTOR_BLOCK = 3 << 19
"""Values of the predictor's planes that are decoded side by side, pads included; it bounds the memory of a reader.

Five slices of 512 x 512, half of a chunk, fit."""

MAX_PREDICTOR_MEASUREMENTS = 4096
"""Measurements in a chunk of the predictor; means of errors over them are exact in float32."""

MAX_TRANSFORM_MEASUREMENTS = 4096
"""Measurements that a transform runs over: its basis has up to the square of them."""

MAX_TRANSFORM_VALUES = 1 << 26
"""Values in a box of the transform: a reader holds each component in eight bytes a value, and some around it."""

MAX_TRANSFORM_COMPONENTS = 1024
"""Components of a transform."""

MAX_TRANSFORM_PER_LANE = 1 << 15
"""Coefficients for each state of the stream: a reader takes a step of some 30 microseconds for each."""

MAX_TRANSFORM_MAGNITUDE = 1 << 24
"""Largest quantised coefficient: wavelets of 16-bit images with a step of 1 stay below."""

MAX_CORRECTION_PARAMETERS = 1 << 14
"""Parameters of a network that corrects decoded components: it is evaluated at each position."""

MAX_AV1_PIXELS = 1 << 22
"""Pixels of a frame in AV1: a decoder holds a dozen frames of three bytes each."""

MAX_AV1_SAMPLES = 1 << 28
"""Pixels of all frames of a chunk in AV1: short sides are padded, and a repeated frame takes three bytes."""

MAX_NEURAL_RADIUS = 6
"""Columns to each side that the network of a neighbourhood looks at: the largest pyramid of the literature."""

MAX_NEURAL_SLICES = 6
"""Slices of a neighbourhood, its own included: a cube of 11 x 11 x 11."""

MAX_NEURAL_LAYERS = 8
"""Hidden layers of a neighbourhood network."""

MAX_NEURAL_WIDTH = 1024
"""Units in such a layer."""

MAX_NEURAL_VALUES = 1 << 28
"""Values of a chunk in mode neural with those that a reader keeps around them; they have two bytes each."""

MAX_REFINER_MAPS = 2048
"""Feature maps that a refining network holds at once: the largest of the literature has 1152."""

MAX_REFINER_VALUES = 1 << 27
"""Values of feature maps that a reader holds together, in four bytes each."""

MAX_REFINER_ATTENTIONS = 2
"""Sums of a refining network over a whole chunk: a reader that does not keep its features makes them again for each."""

MAX_REFINER_PRODUCTS = 1 << 20
"""Products of a refining network for each value: the largest of the literature takes some 800,000, with those of
zeros between positions."""

MAX_SHARED_BYTES = 1 << 21
"""One shared parameter in a codec configuration: a network of 2^21 weights in about 5 bits each fits."""

MAX_SHARED = 8
"""Shared parameters in a codec configuration."""

MAX_CONFIGURATION_SCALES = 1 << 16
"""Entries of the `scale` list in a codec configuration."""

MAX_IMAGE_BYTES = 1 << 36
"""Voxels of one image: a larger one would not fit the memory of the machines that convert."""

MAX_HEADER_BYTES = 1 << 28
"""Bytes before the voxels of an image. The largest extensions known (CIFTI) have some tens of megabytes."""

MAX_TRAILING_BYTES = 1 << 20
"""Bytes after the voxels, which some programs leave; they have to be read to reach a gzip checksum."""

MAX_SIDECAR_BYTES = 1 << 24
"""A gradient table. A million directions with twenty digits each fit in less."""

MAX_EXPANSION = 900
"""How far stored bytes may expand. DEFLATE reaches 1032 on bytes that are all the same; images stay far below."""

FREE_EXPANSION_BYTES = 1 << 26
"""What expands to no more than this is harmless however small it was stored: an empty mask."""

MAX_ZIP_MEMBERS = 1 << 18
"""Files and folders in one zip."""

MAX_ZIP_DIRECTORY_BYTES = 1 << 25
"""The list of a zip's members, which is read as a whole; 128 bytes for each of the most members."""

MAX_PART_BYTES = 255
"""One part of a path, in UTF-8: the limit of every common file system."""

MAX_PATH_BYTES = 4096
"""A whole path, in UTF-8: PATH_MAX of Linux."""

MAX_PATH_PARTS = 128
"""Folders on the way to a file; a walk goes down one level for each."""

MAX_DICOM_FILES = 1 << 17
"""Files of one folder of DICOM files."""

MAX_DICOM_BYTES = 1 << 37
"""All files of one folder of DICOM files; they are copied to a temporary folder."""

MAX_DICOM_OUTPUTS = 1 << 12
"""Files that one folder of DICOM files may become."""

MAX_DICOM_SECONDS = 3600.0
"""Time to convert one folder of DICOM files."""


def most_expanded(stored: int) -> int:
    """Return how many bytes may come out of `stored` bytes of a compressed file."""
    return max(FREE_EXPANSION_BYTES, MAX_EXPANSION * stored)


def predictor_steps(values: int) -> int:
    """Return how many steps the predictor may take for that many values; each costs some 100 microseconds."""
    return 8192 + values // 64
