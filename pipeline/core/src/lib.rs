//! What all stages of the jackpot pipeline share. One room per idea:
//!
//! | room | what lives there |
//! |---|---|
//! | [`money`], [`time`], [`names`], [`digest`] | exact amounts, instants, forms of names, SHA-256 |
//! | [`frame`], [`codec`] | the messages between stages: header, bodies, bytes |
//! | [`refusal`] | the closed set of refusals |
//! | [`rules`] | versions of formats and algorithms |
//! | [`terms`] | what is computed: the document, and its revisions in the log |
//! | [`keys`] | the keys that sign batches: the file, signing, verifying |
//! | [`log`] | the port to the broker, its two implementations and the faults of a network |
//! | [`broker`] | a `nats-server` of this machine's own |
//! | [`stage`] | what a stage is: a function from frame to frame |
//! | [`lane`], [`runner`] | drives a stage: the first decides, the second awaits |
//! | [`sessions`] | what a stage remembers of a source's sessions, bounded |
//! | [`membership`] | who runs what: the processes of a stage divide its partitions |
//! | [`room`] | how full the streams are |
//! | [`snapshot`] | states in the log, and the trimming of lanes that they allow |
//! | [`recovery`] | the one recovery path |
//! | [`publication`] | what belongs to a frame and goes to the outside |
//! | [`health`], [`metrics`], [`admin`], [`status`], [`telemetry`] | what a process says of itself |
//! | [`service`], [`settings`] | the main that all stages share; flags and environment |
//! | [`merkle`] | the tree that makes the audit log provable (RFC 6962) |
//! | [`record`] | the messages that leave the pipeline |
//! | [`topology`] | every subject and stream name |
//! | [`scatter`] | hashes and numbers that look like chance, the same on every machine |
//! | [`limits`] | every bound, with its reason |

pub mod admin;
pub mod broker;
pub mod codec;
pub mod digest;
pub mod frame;
pub mod health;
pub mod keys;
pub mod lane;
pub mod limits;
pub mod log;
pub mod membership;
pub mod merkle;
pub mod metrics;
pub mod money;
pub mod names;
pub mod publication;
pub mod record;
pub mod recovery;
pub mod refusal;
pub mod room;
pub mod rules;
pub mod runner;
pub mod scatter;
pub mod service;
pub mod sessions;
pub mod settings;
pub mod snapshot;
pub mod stage;
pub mod status;
pub mod telemetry;
pub mod terms;
pub mod time;
pub mod topology;
