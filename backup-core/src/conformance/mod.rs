//! Conformance suites as code: what every repository and every engine must do, runnable by third parties.
