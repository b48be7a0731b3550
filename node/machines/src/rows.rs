//! Rows: the state of a machine as tables of key and value. All tables and key layouts stand here.

/// Codes of the tables. 0 belongs to whoever hosts the machine; a retired code stays reserved.
///
/// | table | key | value (`internal.v1`) |
/// |---|---|---|
/// | 1 | (empty) | `PartitionMeta` |
/// | 2 | producer id, u64, big-endian | `StoredProducer` |
/// | 3 | group name, UTF-8 | `StoredGroup` |
/// | 16 | (empty) | `ControllerMeta` |
/// | 17 | node id, u64, big-endian | `StoredNode` |
/// | 18 | topic name, ASCII | `StoredTopic` |
pub mod table {
    /// The partition's one meta row.
    pub const PARTITION_META: u8 = 1;
    /// Idempotent producers of a partition.
    pub const PRODUCER: u8 = 2;
    /// Consumer groups of a partition.
    pub const GROUP: u8 = 3;
    /// The controller's one meta row.
    pub const CONTROLLER_META: u8 = 16;
    /// Nodes of the cluster.
    pub const NODE: u8 = 17;
    /// Topics of the cluster.
    pub const TOPIC: u8 = 18;
}

/// Key of a meta row.
pub(crate) const META_KEY: &[u8] = &[];

/// Takes a machine's changes. A later change of the same key replaces an earlier one, so a caller that collects the
/// changes of an entry writes each key once.
pub trait Rows {
    /// Sets a row.
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>);
    /// Removes a row; it may not exist.
    fn delete(&mut self, table: u8, key: &[u8]);
}

/// Why rows do not make a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A table that this machine does not have.
    #[error("state table {table} is unknown: start the version that wrote this data, or a newer one")]
    UnknownTable {
        /// The table's code.
        table: u8,
    },
    /// A row that does not decode, or contradicts another.
    #[error("row {} of state table {table} is damaged: {reason}; rebuild this replica from its peers", key.escape_ascii())]
    Damaged {
        /// The table's code.
        table: u8,
        /// The row's key.
        key: Vec<u8>,
        /// What is wrong with it.
        reason: String,
    },
}

impl RestoreError {
    pub(crate) fn damaged(table: u8, key: &[u8], reason: impl ToString) -> Self {
        Self::Damaged { table, key: key.to_vec(), reason: reason.to_string() }
    }
}

/// Decodes the value of a row.
pub(crate) fn decode<M: prost::Message + Default>(table: u8, key: &[u8], value: &[u8]) -> Result<M, RestoreError> {
    M::decode(value).map_err(|error| RestoreError::damaged(table, key, error))
}

/// Key of a row that a number names.
pub(crate) fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number in such a key.
pub(crate) fn parse_number_key(table: u8, key: &[u8]) -> Result<u64, RestoreError> {
    let bytes = key.try_into().map_err(|_| RestoreError::damaged(table, key, "the key is not a number of 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

/// The name in a key that is text.
pub(crate) fn parse_name_key(table: u8, key: &[u8]) -> Result<&str, RestoreError> {
    std::str::from_utf8(key).map_err(|error| RestoreError::damaged(table, key, error))
}

/// Key of a producer's row: its id, which is never negative.
pub(crate) fn producer_key(producer_id: i64) -> [u8; 8] {
    number_key(producer_id as u64)
}

/// The producer id in such a key.
pub(crate) fn parse_producer_key(key: &[u8]) -> Result<i64, RestoreError> {
    let number = parse_number_key(table::PRODUCER, key)?;
    i64::try_from(number).map_err(|_| RestoreError::damaged(table::PRODUCER, key, "the producer id is negative"))
}
