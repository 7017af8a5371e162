//! Vocabulary, traits, catalog and orchestration of the backup library
