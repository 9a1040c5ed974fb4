//! What the tests of whole pipelines share: what they publish, the pipeline itself, what it recorded, and the model
//! that says what must come out. Each test crate includes this file; none of them is used by the pipeline.

pub mod input;
pub mod pipeline;
pub mod record;

pub use sim::auditor::model;
