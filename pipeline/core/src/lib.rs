//! What all stages of the jackpot pipeline share. One room per idea:
//!
//! | room | what lives there |
//! |---|---|
//! | [`money`], [`time`], [`names`], [`digest`] | exact amounts, instants, forms of names, SHA-256 |
//! | [`frame`], [`codec`] | the messages between stages: header, bodies, bytes |
//! | [`refusal`] | the closed set of refusals |
//! | [`terms`] | what is computed: the document, and its revisions in the log |
//! | [`log`] | the port to the broker, its two implementations and the faults of a network |
//! | [`stage`] | what a stage is: a function from frame to frame |
//! | [`record`] | the messages that leave the pipeline |
//! | [`topology`] | every subject and stream name |
//! | [`limits`] | every bound, with its reason |

pub mod codec;
pub mod digest;
pub mod frame;
pub mod limits;
pub mod log;
pub mod money;
pub mod names;
pub mod record;
pub mod refusal;
pub mod stage;
pub mod terms;
pub mod time;
pub mod topology;
