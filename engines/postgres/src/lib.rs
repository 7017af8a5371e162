//! PostgreSQL engine of the backup library: physical base backups, by protocol or from local files
