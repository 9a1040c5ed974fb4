//! The aggregate stage.
