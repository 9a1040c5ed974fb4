//! The whole pipeline in one thread, from one seed: the five real stages, with the real lanes and runners, over the
//! log in memory behind a network that loses, delays and repeats, with processes that crash at any await. What comes
//! out is held to an auditor that shares no code with the stages. One seed is always the same run, byte for byte.
//!
//! | room | what lives there |
//! |---|---|
//! | [`scenario`] | a run from its beginning to the audit |
//! | [`profile`], [`dice`] | what a seed decides, and by what |
//! | [`workload`], [`producers`] | terms and batches, and who brings them |
//! | [`executor`], [`trace`] | who is polled next, and what has happened |
//! | [`network`] | the broker, and the way to it |
//! | [`stages`], [`fleet`], [`chaos`] | the processes, and what is done to them |
//! | [`auditor`] | what must have come out |

pub mod auditor;
pub mod chaos;
pub mod dice;
pub mod executor;
pub mod fleet;
pub mod network;
pub mod producers;
pub mod profile;
pub mod scenario;
pub mod stages;
pub mod trace;
pub mod workload;
