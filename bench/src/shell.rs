//! Programs that are run: their output, or an error that names them.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::{Result, stop};

/// Runs a program that has to succeed; returns its stdout.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = finish(command.stdout(Stdio::piped()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => Err(failure(command, &output).into()),
    }
}

/// Runs a program whose output does not matter, only that it looked at everything: grep says 1 where it finds nothing.
pub(crate) fn search(command: &mut Command) -> Result<()> {
    let output = finish(command.stdout(Stdio::null()))?;
    match output.status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(failure(command, &output).into()),
    }
}

fn finish(command: &mut Command) -> Result<Output> {
    // A group of its own: it is ended with all that it started, and Ctrl-C on the terminal does not reach what cleans up.
    let command = command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    Ok(stop::during(child.id(), || child.wait_with_output())?)
}

fn failure(command: &Command, output: &Output) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}` failed: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim_end())
}

/// Has every file below some directories read, so that the page cache has it.
pub(crate) fn read_all(dirs: &[&Path]) -> Result<()> {
    let mut find = Command::new("find");
    search(find.args(dirs).args(["-type", "f", "-exec", "cat", "--", "{}", "+"]))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--"]).arg(from).arg(to)).map(drop)
}

pub(crate) fn remove(dir: &Path) -> Result<()> {
    run(Command::new("rm").args(["-r", "--"]).arg(dir)).map(drop)
}

/// How many files are below a directory.
pub(crate) fn files_in(dir: &Path) -> Result<u64> {
    let dots = run(Command::new("find").arg(dir).args(["-type", "f", "-printf", "."]))?;
    Ok(dots.len() as u64)
}

/// What everything below a directory takes on its disk.
pub(crate) fn bytes_of(dir: &Path) -> Result<u64> {
    let line = run(Command::new("du").args(["-s", "-B1"]).arg(dir))?;
    let bytes = line.split_whitespace().next().ok_or("du says nothing")?;
    Ok(bytes.parse()?)
}

/// Writes out everything, so that what one side left does not slow the other.
pub(crate) fn settle() -> Result<()> {
    run(&mut Command::new("sync")).map(drop)
}
