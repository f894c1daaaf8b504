//! `ringlane check`: validates a configuration and prints what would run.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::plan::Plan;
use super::{ConfigFile, WRONG_USE, load};

const AFTER_HELP: &str = "\
Nothing is bound or connected: whether ports are free and servers answer shows at the start. CPUs that are named and
that this machine does not have, and a directory that the access log lacks, are told of and are no error: the file may
be for another machine.

Exit code: 0 when the configuration is valid, 2 when it is refused.";

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigFile,
}

pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let Some(config) = load(&args.config.path) else {
        return ExitCode::from(WRONG_USE);
    };
    let mut stdout = io::stdout().lock();
    // A reader that has seen enough, such as head(1), is no failure.
    let _ = write!(
        stdout,
        "{} is valid\n\n{}",
        args.config.path.display(),
        Plan(&config)
    );
    ExitCode::SUCCESS
}
