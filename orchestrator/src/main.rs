//! The binary: configuration, assembly, roles, commands, shutdown. Reads top to bottom as the life of a process.

mod assemble;
mod cli;
mod commands;
mod config;
mod http;
mod memory;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match cli.command {
            Command::Up(a) => assemble::up(a.load()?, true).await,
            Command::Server(a) => assemble::up(a.load()?, false).await,
            Command::Down(a) => commands::down::run(a).await,
            Command::Kubeconfig(a) => commands::access::kubeconfig(&a),
            Command::Open(a) => commands::access::open(&a).await,
            Command::Token(a) => commands::access::token(&a),
            Command::Query(a) => commands::query::run(a).await,
            Command::Logs(a) => commands::logs::run(a).await,
            Command::Explain(a) => commands::explain::run(a).await,
            Command::Doctor(a) => commands::doctor::run(&a),
            Command::Config(a) => commands::configuration::run(a),
            Command::Image(a) => commands::image::run(a).await,
            Command::Import(a) => commands::transfer::import(a).await,
            Command::Export(a) => commands::transfer::export(a).await,
            Command::Backup(a) => commands::backup::backup(a).await,
            Command::Restore(a) => commands::backup::restore(&a),
            Command::Test(a) => commands::scripts::run(&a),
            Command::Check(a) => commands::scripts::check(&a),
            Command::Alerts(a) => commands::alerts::run(a).await,
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("control")
        .enable_all()
        .build()
    {
        Ok(r) => r,
        Err(e) => return commands::fail(&anyhow::Error::new(e).context("start threads")),
    };
    let result = runtime.block_on(run);
    // What still blocks after a clean stop holds nothing that must be saved.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => commands::fail(&e),
    }
}
