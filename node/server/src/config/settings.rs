//! Every setting of the server, declared once: name, type, default, help. Flags, environment variables, keys of the
//! configuration file, `config print` and the table in README.md all follow from this list.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Advertise, Auto, LogFilter, LogFormat, PeerAdvertise, Seeds, Size, Value};
use super::{ConfigError, Entry, Origin};

/// What is declared about a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Key in the file; the flag is `--` and this with dashes, the variable `FLOTILLA_` and this in capitals.
    pub name: &'static str,
    /// Default, as text.
    pub default: &'static str,
    /// One or two sentences for people.
    pub help: &'static str,
}

impl Setting {
    /// The flag, with its dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.name.replace('_', "-"))
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("FLOTILLA_{}", self.name.to_uppercase())
    }
}

macro_rules! settings {
    ($($name:ident: $type:ty = $default:literal, $help:literal;)*) => {
        /// The server's configuration, every value typed and in force.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(#[doc = $help] pub $name: $type,)*
        }

        /// The settings given on the command line.
        #[derive(Debug, Default, clap::Args)]
        pub struct Flags {
            $(#[arg(long, value_name = <$type as Value>::HINT, help = concat!($help, " [default: ", $default, "]"))]
            $name: Option<String>,)*
        }

        impl Flags {
            pub(super) fn get(&self, name: &str) -> Option<&str> {
                match name {
                    $(stringify!($name) => self.$name.as_deref(),)*
                    _ => None,
                }
            }
        }

        /// All settings, in the order in which they are shown.
        pub const SETTINGS: &[Setting] =
            &[$(Setting { name: stringify!($name), default: $default, help: $help }),*];

        impl Config {
            /// Builds a configuration from the text that `pick` finds for each setting.
            pub(super) fn resolve(
                pick: impl Fn(&Setting) -> (String, Origin),
            ) -> Result<(Self, Vec<Entry>), ConfigError> {
                let mut entries = Vec::with_capacity(SETTINGS.len());
                $(
                    let setting = Setting { name: stringify!($name), default: $default, help: $help };
                    let (text, origin) = pick(&setting);
                    let $name = <$type as Value>::parse(&text)
                        .map_err(|why| ConfigError::Invalid { name: setting.name, why, origin: origin.clone() })?;
                    entries.push(Entry { setting, value: $name.show(), origin });
                )*
                Ok((Self { $($name),* }, entries))
            }
        }
    };
}

settings! {
    data_dir: PathBuf = "flotilla-data", "Directory that holds everything the node stores; created if missing, used by one node at a time";
    listen: SocketAddr = "127.0.0.1:7070", "Address of the gRPC API";
    http: SocketAddr = "127.0.0.1:7071", "Address of the HTTP port: /livez, /readyz, /startupz and /metrics";
    advertise: Advertise = "listen", "Host and port at which clients reach this node; `listen` means the address it listens on";
    peer_advertise: PeerAdvertise = "advertise", "Host and port at which other nodes reach this node; `advertise` means the same as for clients";
    seeds: Seeds = "", "Addresses at which other nodes reach the first nodes of the cluster, the same list on each: HOST:PORT,HOST:PORT; empty: this node is a cluster of its own";
    rack: String = "", "Where this node stands; copies of a partition are spread over racks";
    connections_max: Auto<u32> = "auto", "Connections of clients that may be open at once; `auto` means 10000, or fewer where the limit of open files is low";
    node_id: u64 = "1", "Number of this node in its cluster; fixed once the data directory exists";
    log_level: LogFilter = "info", "What is logged to stderr: error, warn, info, debug, trace, off, or target=level pairs";
    log_format: LogFormat = "text", "How log lines look: text or json";
    journal_bytes: Size = "1GiB", "Largest size of the journal, a ring of recycled files that is grown as needed";
    segment_bytes: Size = "256MiB", "Size at which a partition's segment file is closed and the next begun; retention deletes whole segments";
    disk_reserve_bytes: Auto<Size> = "auto", "Free space of the disk that producers leave alone, besides the journal's next file; `auto` means 256MiB, or a twentieth of a smaller disk; 0: none";
    retention_interval: Duration = "1m", "How often old records are looked for";
    proposal_bytes_max: Size = "64MiB", "Bytes of batches that may be on their way to the disk at once, over all partitions, of which each takes up to a quarter; further ones wait";
    tail_bytes_max: Size = "128MiB", "Bytes of memory for entries that are applied and not yet in segments, over all partitions; producers wait beyond it";
    request_bytes_max: Size = "32MiB", "Largest request accepted";
    decompressed_bytes_max: Size = "64MiB", "Largest size of one batch's records when decompressed";
    records_per_batch_max: u32 = "1000000", "Largest number of records in one batch";
    stream_in_flight_max: u32 = "4096", "Requests of one produce stream that may wait for their answers; further ones wait on the connection";
    stream_in_flight_bytes_max: Size = "64MiB", "Bytes of one produce stream's requests that may wait for their answers";
    receive_bytes_max: Size = "256MiB", "Bytes of requests, complete or not, that the node holds at once, over all clients; further ones wait";
    send_bytes_max: Size = "128MiB", "Bytes of answers that the node holds at once because their clients have not read them; further reads wait";
    push_bytes_max: Size = "1MiB", "Largest message pushed to a consumer, unless a single batch is larger";
    wait_max: Duration = "30s", "Longest wait of a fetch for its first record, whatever the request says";
    drain_timeout: Duration = "10s", "How long open streams may take to finish when the server stops";
}
