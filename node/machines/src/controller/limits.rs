//! How large the cluster's metadata may grow, and what must hold between the limits.

/// Nodes of a cluster.
pub const NODES_MAX: usize = 1_000;
/// Nodes that a cluster remembers as removed, so that nobody gets their ids again.
pub const NODES_REMOVED_MAX: usize = 100_000;
/// Topics of a cluster.
pub const TOPICS_MAX: usize = 100_000;
/// Partitions of one topic. Its row names the replicas of each, about 60 bytes.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 10_000;
/// Partitions of all topics together.
pub const PARTITIONS_MAX: usize = 200_000;
/// Copies of a partition.
pub const REPLICATION_FACTOR_MAX: usize = 7;
/// Producer ids handed out by one command.
pub const PRODUCER_IDS_PER_BLOCK_MAX: u32 = 100_000;
/// Largest producer id: a batch header carries it as a signed number.
pub const PRODUCER_ID_MAX: u64 = i64::MAX as u64;

/// Largest id of a Raft group; more than can ever be handed out.
pub const GROUP_ID_MAX: u64 = i64::MAX as u64;

/// Replica ids stay below; more than can ever be handed out.
pub const REPLICA_ID_MAX: u64 = i64::MAX as u64;
/// Replica ids lie above the ids of nodes, so that nobody takes one for the other: but nobody counts up to a node id that is
/// larger than this.
pub const NODE_ID_COUNTED_MAX: u64 = u32::MAX as u64;

/// Smallest value of a topic's `batch_bytes_max`: a limit that would refuse ordinary records is a mistake.
pub const BATCH_BYTES_MAX_MIN: u64 = 1024;
/// Value of a topic's `batch_bytes_max` where none is given: 4 MiB.
pub const BATCH_BYTES_MAX_DEFAULT: u64 = 4 * 1024 * 1024;
/// Largest value of a topic's `batch_bytes_max`: 16 MiB. A batch is proposed, replicated and read in one piece.
pub const BATCH_BYTES_MAX_MAX: u64 = 16 * 1024 * 1024;
/// How long records are kept where nothing is said, in milliseconds: 7 days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * DAY_MS;
/// Longest retention but "for ever", in milliseconds: 100 years.
pub const RETENTION_MS_MAX: u64 = 100 * 365 * DAY_MS;
/// How far ahead of machine time a record may be dated where nothing is said, in milliseconds: 1 hour.
pub const TIMESTAMP_AHEAD_MS_DEFAULT: u64 = DAY_MS / 24;
/// How far ahead that may be at most, in milliseconds: 100 years.
pub const TIMESTAMP_AHEAD_MS_MAX: u64 = RETENTION_MS_MAX;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

const _: () = assert!(TOPICS_MAX <= PARTITIONS_MAX, "a topic has at least one partition");
const _: () = assert!(PARTITIONS_PER_TOPIC_MAX <= PARTITIONS_MAX);
const _: () = assert!(PARTITIONS_PER_TOPIC_MAX <= u32::MAX as usize, "partitions are numbered in 32 bits");
const _: () = assert!(REPLICATION_FACTOR_MAX <= NODES_MAX);
const _: () = assert!(BATCH_BYTES_MAX_MIN <= BATCH_BYTES_MAX_DEFAULT);
const _: () = assert!(BATCH_BYTES_MAX_DEFAULT <= BATCH_BYTES_MAX_MAX);
const _: () = assert!(BATCH_BYTES_MAX_MAX <= i32::MAX as u64, "a batch header says its length in 31 bits");
const _: () = assert!(RETENTION_MS_DEFAULT <= RETENTION_MS_MAX);
const _: () = assert!(RETENTION_MS_MAX <= i64::MAX as u64, "it is compared with timestamps");
const _: () = assert!(TIMESTAMP_AHEAD_MS_DEFAULT <= TIMESTAMP_AHEAD_MS_MAX);
