//! What the server shows of itself: log lines on stderr, [`metrics`], and the [`http`] port that serves them.

pub mod http;
pub mod metrics;

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Sends log lines to stderr, as the configuration says. Once per process.
pub fn start_logging(config: &Config) {
    // openraft tells every step of every group, and calls an error what is tried again here: a change of membership while
    // another one is under way, or by who has just lost the lead. A filter that names it still gets that.
    let quiet = "openraft=error,openraft::raft::api::management=off";
    let filter = EnvFilter::new(format!("{quiet},{}", config.log_level.0));
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
