//! How a command ends: the exit code and the one sentence on standard error (contract, section 7).
//! 0 is success, 1 a failure, 2 wrong usage, 78 a flag or variable whose value cannot be used.

use std::fmt;
use std::process::ExitCode;

/// A command failed.
pub const FAILED: u8 = 1;
/// The command line is not of the command's form.
pub const USAGE: u8 = 2;
/// A flag or variable has a value that cannot be used; starting again will not mend it.
pub const UNUSABLE: u8 = 78;

/// A flag or variable whose value cannot be used, and what to do about it.
#[derive(Debug)]
pub struct Unusable(String);

impl Unusable {
    /// `what` is a sentence without its full stop.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unusable {}

/// Prints why a command failed, and gives its exit code.
///
/// Whoever reads our output may have gone (`jackpot hits | head`): that is no failure.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("jackpot: {}", sentence(error));
    let unusable = error.is::<Unusable>();
    ExitCode::from(if unusable { UNUSABLE } else { FAILED })
}

/// The exit code of what clap says about the command line: a value that cannot be used is not wrong usage.
pub fn usage(error: &clap::Error) -> ExitCode {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let value_given = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => !value.is_empty(),
        _ => false,
    };
    let code = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        ErrorKind::ValueValidation => UNUSABLE,
        ErrorKind::InvalidValue if value_given => UNUSABLE,
        _ => USAGE,
    };
    // Nothing is left to be done where even this cannot be printed.
    drop(error.print());
    ExitCode::from(code)
}

/// The error and its causes on one line, none of them told twice.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_are_told_once_and_on_one_line() {
        let inner = anyhow!("no\nroute");
        assert_eq!(sentence(&inner.context("cannot connect: no route")), "cannot connect: no route");
        assert_eq!(sentence(&anyhow!("b").context("a")), "a: b");
    }

    #[test]
    fn codes_follow_the_contract() {
        assert_eq!(failure(&anyhow!("x")), ExitCode::from(1));
        assert_eq!(failure(&anyhow::Error::new(Unusable::new("x")).context("y")), ExitCode::from(78));
        let context = Err::<(), _>(std::fmt::Error).context(Unusable::new("x")).expect_err("an error");
        assert_eq!(failure(&context), ExitCode::from(78));
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(failure(&anyhow::Error::new(pipe)), ExitCode::SUCCESS);
    }
}
