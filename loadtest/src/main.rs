//! `waypost-loadtest`: options in, load out, exit code: 0 objectives met,
//! 1 not met, 2 could not run, 64 bad options.

use std::process::ExitCode;

use clap::Parser as _;
use waypost_loadtest::{Options, run};

/// Options that make no sense (`EX_USAGE` of sysexits.h).
const BAD_OPTIONS: u8 = 64;
const COULD_NOT_RUN: u8 = 2;
const NOT_MET: u8 = 1;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version arrive here too; printing them can only fail
            // when nobody is listening any more.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(BAD_OPTIONS)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let plan = match options.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(BAD_OPTIONS);
        }
    };
    match run(&plan) {
        Ok(report) if report.verdict.met => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(NOT_MET),
        Err(error) => {
            eprintln!("error: failed to {}", waypost_loadtest::chain(&error));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}
