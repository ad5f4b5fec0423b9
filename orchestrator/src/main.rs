//! The binary: configuration, assembly, roles, commands, shutdown. Reads top to bottom as the life of a process.

mod assemble;
mod cli;
mod commands;
mod config;
mod http;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// glibc gives each thread an arena of its own and returns none of it: with a dozen threads that is more than all
/// that is in use. Two arenas serve two cores; what is free at the end of one goes back to the kernel.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt has no safe wrapper; it is called before any thread is started")]
fn bound_arenas() {
    // SAFETY: only sets two numbers of the allocator. A refusal leaves the defaults, which work too.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// What lies free between what is in use goes back to the kernel, too. Takes some milliseconds.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "malloc_trim has no safe wrapper; any thread may call it at any time")]
fn give_memory_back() {
    // SAFETY: touches nothing but free memory, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn bound_arenas() {}

#[cfg(not(target_env = "gnu"))]
fn give_memory_back() {}

fn main() -> ExitCode {
    bound_arenas();
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
