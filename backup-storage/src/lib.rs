//! The encrypted, incremental, write-once backup repository over any object store
