//! The allocate stage.
