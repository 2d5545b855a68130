//! The program `dockersave`: argv in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(dockersave::run(std::env::args_os()))
}
