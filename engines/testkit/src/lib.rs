//! Real servers for tests and examples, provisioned on demand
