//! What a call is, by its path: what it means when nobody reads its answer depends on it.

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nature {
    /// Its answer is a stream, not one message.
    pub streams: bool,
    /// It may have changed something by the time it answers.
    pub writes: bool,
}

impl Nature {
    /// Of the call with this path. One that is not known here may have changed something.
    pub fn of(path: &str) -> Self {
        let (streams, writes) = match path {
            "/flotilla.v1.Consumer/Consume" => (true, false),
            "/flotilla.v1.Producer/ProduceStream" => (true, true),
            "/flotilla.v1.Cluster/DescribeCluster"
            | "/flotilla.v1.Cluster/GetMetadata"
            | "/flotilla.v1.Cluster/VerifyReplicas"
            | "/flotilla.v1.Consumer/Fetch"
            | "/flotilla.v1.Consumer/ListOffsets"
            | "/flotilla.v1.Groups/Committed"
            | "/flotilla.v1.Partitions/ListPartitions"
            | "/flotilla.v1.Topics/DescribeTopic"
            | "/flotilla.v1.Topics/ListTopics" => (false, false),
            // Health and reflection answer in streams, too, and change nothing.
            other if !other.starts_with("/flotilla.") => (true, false),
            _ => (false, true),
        };
        Self { streams, writes }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Calls that change something.
    const WRITES: [&str; 15] = [
        "Producer/Produce",
        "Producer/ProduceStream",
        "Producer/InitProducer",
        "Groups/Commit",
        "Nodes/DrainNode",
        "Nodes/UndrainNode",
        "Nodes/RemoveNode",
        "Partitions/MovePartition",
        "Partitions/CancelMove",
        "Partitions/TransferLeader",
        "Partitions/RecoverPartition",
        "Topics/CreateTopic",
        "Topics/AlterTopic",
        "Topics/AddPartitions",
        "Topics/DeleteTopic",
    ];

    #[test]
    fn every_call_of_the_api_is_what_its_description_says() {
        let described = FileDescriptorSet::decode(flotilla_proto::DESCRIPTORS).unwrap();
        let files = described.file.iter().filter(|file| file.package() == "flotilla.v1");
        let mut seen = 0;
        for service in files.flat_map(|file| &file.service) {
            for method in &service.method {
                let name = format!("{}/{}", service.name(), method.name());
                let nature = Nature::of(&format!("/flotilla.v1.{name}"));
                let writes = WRITES.contains(&name.as_str()) || name == "Topics/DeleteRecords";
                assert_eq!(nature, Nature { streams: method.server_streaming(), writes }, "{name}");
                seen += 1;
            }
        }
        assert!(seen > WRITES.len());
    }
}
