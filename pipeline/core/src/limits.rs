//! Every bound in the pipeline, with its reason (invariant I7), and the proofs that they fit each other.

/// Partitions at most: five logs each, and JetStream manages a few hundred logs well.
pub const PARTITIONS_MAX: u16 = 64;

/// A batch's body at most (contract, section 2).
pub const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Wagers of a batch at most (contract, section 2).
pub const BATCH_WAGERS_MAX: usize = 500;
/// Entries of `hits` of a batch at most (contract, section 2).
pub const BATCH_HITS_MAX: usize = 64;
/// Entries of `hits` of a wager at most (contract, section 1).
pub const WAGER_HITS_MAX: usize = 16;
/// Pools that one wager takes part in at most (contract, section 4).
pub const WAGER_POOLS_MAX: usize = 8;
/// Levels of a pool at most (contract, section 4).
pub const POOL_LEVELS_MAX: usize = 8;
/// Levels in all at most (contract, section 4).
pub const LEVELS_MAX: usize = 1_024;
/// Games in all at most (contract, section 4).
pub const GAMES_MAX: usize = 2_000;
/// Pairs of operator and jurisdiction at most (contract, section 4).
pub const OPERATOR_JURISDICTIONS_MAX: usize = 2_000;

/// Wagers of a frame at most: what a frame becomes in every later stage must fit one message.
pub const FRAME_WAGERS_MAX: usize = 1_024;
/// Hits of a frame at most: each becomes up to half a kilobyte of a commit.
pub const FRAME_HITS_MAX: usize = 256;
/// Ingress messages of a frame at most: each may be a refusal with its detail.
pub const FRAME_BATCHES_MAX: usize = 1_024;
/// Bytes of a validated frame beyond which no further batch is taken in.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
/// A message at most: the broker's default `max_payload`, less room for headers.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024 - 1024;

/// A refusal's detail at most, in bytes of UTF-8.
pub const DETAIL_BYTES_MAX: usize = 300;

/// Appends of a lane in flight at most: more gained nothing (nats-facts).
pub const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// Their bytes at most.
pub const APPEND_BYTES_IN_FLIGHT_MAX: usize = 8 * 1024 * 1024;
/// Bytes that a reader asks for ahead.
pub const READ_AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// Messages that a reader asks for ahead.
pub const READ_AHEAD_MESSAGES: usize = 4_096;
/// Subjects whose last message a publisher remembers; beyond, it forgets all and asks again.
pub const SUBJECTS_REMEMBERED: usize = 20_000;
/// Processes of a stage that a process knows of; beyond, the one that has been silent longest is forgotten.
pub const MEMBERS_REMEMBERED: usize = 1_024;
/// Revisions of the terms that a process keeps: partitions run at most a few at a time.
pub const TERMS_REMEMBERED: usize = 16;
/// Sends of one appender that are not acknowledged at most: beyond, sending waits.
pub const APPENDS_UNACKNOWLEDGED_MAX: usize = 4_096;
/// Messages that a subscription holds until they are taken; what comes when it is full is dropped and noticed.
pub const SUBSCRIPTION_MESSAGES_MAX: usize = 8_192;
/// Plain messages kept for a listener that is busy; the oldest are dropped first.
pub const NOTICES_MAX: usize = 1_024;
/// A name in a subject that we publish to, at most, in bytes: with two of them a command's line stays far below the
/// 4,096 bytes that a broker reads by default.
pub const SUBJECT_NAME_BYTES_MAX: usize = 1_024;
/// Messages of one atomic batch at most; the broker's own limit is 1,000.
pub const ATOMIC_BATCH_MAX: usize = 500;

/// How far below the highest accepted batch a source's window reaches (contract, section 3).
pub const SEQUENCE_WINDOW: u64 = 1_024;
/// How far above it a batch may jump (contract, section 3).
pub const SEQUENCE_JUMP_MAX: u64 = 1_000_000;
/// Batches of a source whose content is remembered (contract, section 3).
pub const CONTENTS_REMEMBERED: usize = 16;
/// How far below the highest accepted interaction a session's window reaches (contract, section 3).
pub const INTERACTION_WINDOW: u64 = 64;
/// How long a session is remembered after its last wager, in milliseconds of the broker's time.
pub const SESSION_IDLE_MAX_MS: i64 = 12 * 3_600 * 1_000;
/// Sessions remembered per source at most (contract, section 3).
pub const SESSIONS_PER_SOURCE_MAX: usize = 1_000_000;
/// How far `occurred_at` may lie after the broker's receive time, in milliseconds (contract, section 3).
pub const FUTURE_MAX_MS: i64 = 5_000;

/// Levels and hits of a commit, in bytes, beyond which it takes no further frame (contract, section 5).
pub const COMMIT_CHANGES_BYTES: usize = 384 * 1024;
/// A commit at most: windows that would make it larger close in the next ones (contract, section 5).
pub const COMMIT_BYTES_MAX: usize = 768 * 1024;

const _: () = assert!(FRAME_BYTES_MAX + BATCH_BYTES_MAX <= MESSAGE_BYTES_MAX + 1024);
const _: () = assert!(BATCH_WAGERS_MAX <= FRAME_WAGERS_MAX, "a frame must be able to hold any one batch");
const _: () = assert!(BATCH_HITS_MAX <= FRAME_HITS_MAX, "a frame must be able to hold any one batch");
const _: () = assert!(COMMIT_CHANGES_BYTES < COMMIT_BYTES_MAX && COMMIT_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(READ_AHEAD_MESSAGES * 3 / 2 < SUBSCRIPTION_MESSAGES_MAX, "what is asked for must fit");
const _: () = assert!(APPENDS_UNACKNOWLEDGED_MAX < SUBSCRIPTION_MESSAGES_MAX, "all replies must fit");
const _: () = assert!(FRAME_WAGERS_MAX * (DETAIL_BYTES_MAX + 16) < MESSAGE_BYTES_MAX, "all refused must fit");
