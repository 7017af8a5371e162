//! Key hierarchy and authenticated sealing of backup objects: pure, synchronous, without I/O
