//! The matrix: what it says, how it is read, and whether what follows from it is what the platform's page promises.

mod document;
mod promise;
mod sixty_days;
