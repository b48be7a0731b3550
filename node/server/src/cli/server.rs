//! `flotilla server`: runs a node until it is told to stop.

use std::io;
use std::path::PathBuf;
use std::process;
use std::time::Instant;

use rustix::process::{Pid, Resource, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit};
use tokio_util::sync::CancellationToken;

use super::reopen;
use super::signals::StopRequests;
use crate::config::{self, Config, ConfigError, Entry, Flags};
use crate::server::{self, Listeners, ServerError};
use crate::telemetry;

/// Exit code of a process that was told twice to stop: as a shell says it of one that SIGINT killed.
const STOPPED_AT_ONCE: i32 = 130;

/// Everything that configures a server.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each flag --some-setting can be set as FLOTILLA_SOME_SETTING in the environment, or as some_setting in \
                        the file, too. Flags win over the environment, the environment over the file.")]
pub struct ServerArgs {
    /// Configuration file (TOML) [env: FLOTILLA_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End at once when the process with this id, which started this one, ends: for those who start nodes for a while only
    #[arg(long, value_name = "PID", hide = true)]
    exit_with: Option<i32>,
    /// How often its storage has failed lately: a server adds this itself when it begins anew
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide = true)]
    reopened: u32,
    #[command(flatten)]
    flags: Flags,
}

impl ServerArgs {
    /// Sees to it that this process ends with the one that started it, if that was asked for.
    ///
    /// # Errors
    /// If the system refuses, or that process has ended already.
    pub fn tie_to_starter(&self) -> io::Result<()> {
        let Some(starter) = self.exit_with.map(|id| Pid::from_raw(id).ok_or(io::ErrorKind::InvalidInput)).transpose()? else {
            return Ok(());
        };
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before the line above: then nothing will tell.
        if getppid() == Some(starter) { Ok(()) } else { Err(io::Error::other(format!("process {starter} has ended"))) }
    }

    /// Puts the configuration together.
    ///
    /// # Errors
    /// See [`config::load`].
    pub fn load(&self) -> Result<(Config, Vec<Entry>), ConfigError> {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let path = self.config.clone().or_else(|| variable("FLOTILLA_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        config::load(&self.flags, variable, path.as_deref())
    }

    /// What the environment seems to be meant to set, and does not: a sentence for each variable.
    pub fn misspelt() -> impl Iterator<Item = String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let sentence = |(variable, meant)| format!("the environment variable {variable} sets nothing: did you mean {meant}?");
        config::misspelt(names).into_iter().map(sentence)
    }
}

/// Runs a node until SIGINT or SIGTERM. A second request ends the process at once: what was acknowledged is safe then, too.
/// If its storage fails, it begins anew from what is on the disk.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(args: &ServerArgs, config: &Config) -> Result<(), ServerError> {
    let began = Instant::now();
    telemetry::start_logging(config);
    ServerArgs::misspelt().for_each(|sentence| tracing::warn!("{sentence}"));
    raise_open_files_limit();
    use_small_pages();
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let listeners = Listeners::bind(config).await?;
    match server::run(config, listeners, stop.clone()).await {
        Err(error) if error.is_storage(args.reopened > 0) && !stop.is_cancelled() => {
            begin_anew(args.reopened, began, &stop, error).await
        }
        ended => ended,
    }
}

/// Does not return, unless it is told to stop meanwhile or the system refuses.
async fn begin_anew(before: u32, began: Instant, stop: &CancellationToken, error: ServerError) -> Result<(), ServerError> {
    let (times, pause) = reopen::count(before, began.elapsed());
    tracing::error!(%error, ?pause, "opening the data again from the disk");
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = tokio::time::sleep(pause) => {}
    }
    let refused = reopen::replace_process(times);
    tracing::error!(%refused, "the process could not be replaced: start the node again");
    Err(error)
}

/// Every segment is an open file, and the usual soft limit of 1,024 is for programs that use select(2).
fn raise_open_files_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "could not raise the limit of open files: many partitions may need more (ulimit -n)");
    }
}

/// A partition at rest touches little of the memory that is set aside for its queues; with huge pages it takes all of it
/// (2.5 MB instead of 150 KB were measured), and the system takes long to clear it.
fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "could not do without huge pages: many partitions take more memory");
    }
}

fn stop_on_signals(stop: &CancellationToken) -> Result<(), ServerError> {
    let mut requests = StopRequests::all().map_err(ServerError::Signals)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            requests.next().await;
            if stop.is_cancelled() {
                tracing::warn!("told to stop a second time: ending at once");
                process::exit(STOPPED_AT_ONCE);
            }
            stop.cancel();
        }
    });
    Ok(())
}
