//! The operator's command `jackpot` (contract, section 7): one module per command, generic over the log port
//! wherever a command only reads and appends. Results go to standard output; progress, and the one sentence of
//! an error, to standard error. Nothing of the pipeline's own work is done here.

pub mod bench;
pub mod chaos;
pub mod cli;
pub mod completions;
pub mod duration;
pub mod exit;
pub mod explain;
pub mod frame;
pub mod init;
pub mod keys;
pub mod live;
pub mod load;
pub mod progress;
pub mod publish;
pub mod serve;
pub mod server;
pub mod status;
pub mod streams;
pub mod terms;
pub mod up;
pub mod verify;
pub mod views;
pub mod wait;
pub mod watch;
