//! The snapshot file of Redis and Valkey (RDB): read as it comes, in pieces of any size.
//!
//! The rule of this room: nothing here waits, reads a clock or touches a server, memory does not grow with a value, and
//! no input makes it panic. Source of the format: `rdb.h` and `rdb.c` of Redis 5 to 8 and of Valkey 7.2 to 9.
