//! `limber completions` and `limber man`: what shells and `man` know of the program, made from its own flags.

use super::{Cli, output};
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct PageArguments {
    /// Folder of the pages; it is created
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn completions(arguments: &CompletionArguments) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "limber", &mut script);
    output::piece(&String::from_utf8(script)?)
}

pub fn pages(arguments: &PageArguments) -> Result<()> {
    let folder = &arguments.folder;
    let failed = || format!("cannot write manual pages to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).with_context(failed)?;
    output::line(&folder.display().to_string())
}
