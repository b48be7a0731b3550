//! The commands of controller scripts.

use flotilla_machines::controller::{ControllerMachine, Replica, command_payload};
use flotilla_machines::{item, table};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command as Wire;
use prost::Message;

use crate::common::Store;
use crate::script::{self, Command, show_changes, show_outcome, show_rows};

#[derive(Default)]
pub struct Session {
    machine: ControllerMachine,
    store: Store,
}

impl script::Session for Session {
    fn run(&mut self, command: &Command) -> String {
        let (kind, payload) = match command.verb.as_str() {
            "clock" => (item::CLOCK, item::clock_payload(command.number("ms"))),
            "stamp" => {
                let (now_ms, dated_ms) = (command.number("now_ms"), command.number("dated_ms"));
                (item::STAMP, item::stamp_payload(&v1::Stamp { now_ms, dated_ms, timestamp_ahead_max_ms: None }))
            }
            "raw" => (command.number("kind"), command.bytes("hex").into()),
            "restore" => return self.restore(),
            "rows" => return show_rows(&self.store),
            "image" => return self.image(),
            _ => (item::COMMAND, command_payload(wire(command))),
        };
        let applied = self.machine.apply(kind, &payload, &mut self.store);
        let changes = show_changes(self.store.take_changes(), show_value);
        format!("{}{:?}\n{changes}", show_outcome(&applied.outcome), applied.decision)
    }
}

impl Session {
    fn restore(&mut self) -> String {
        let restored = ControllerMachine::restore(self.store.rows()).unwrap();
        assert_eq!(restored, self.machine);
        self.machine = restored;
        "the same machine".to_owned()
    }

    fn image(&self) -> String {
        let image = self.machine.image();
        let mut out = format!("version {}, {} partitions\n", image.version(), image.partition_count());
        for (id, node) in image.nodes() {
            let directory_id = node.directory_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
            let controller = match node.controller_replica {
                own if own == id => String::new(),
                replica => format!(" controller replica {replica}"),
            };
            out += &format!(
                "node {id} {} at {}, {} rack {:?} {directory_id}{controller}\n",
                node.state, node.address, node.peer_address, node.rack
            );
        }
        for topic in image.topics() {
            out += &format!("topic {} {} created at {} ms {:?}\n", topic.name, topic.id, topic.created_at_ms, topic.config);
            for partition in &topic.partitions {
                let found = image.partition_of_group(partition.group_id).map(|(topic, number)| (&*topic.name, number));
                let target =
                    partition.target.as_deref().map(|target| format!(" to {}", show_replicas(target))).unwrap_or_default();
                let former = match partition.former.as_slice() {
                    [] => String::new(),
                    former => format!(" left over {}", show_replicas(former)),
                };
                let replicas = show_replicas(&partition.replicas);
                out += &format!("  group {} on {replicas}{target}{former}, found as {found:?}\n", partition.group_id);
            }
        }
        out
    }
}

/// As node, or replica id @ node where they differ; with an asterisk where it is fresh.
fn show_replicas(replicas: &[Replica]) -> String {
    let show = |replica: &Replica| {
        let id = if replica.id == replica.node { String::new() } else { format!("{}@", replica.id) };
        format!("{id}{}{}", replica.node, if replica.fresh { "*" } else { "" })
    };
    format!("[{}]", replicas.iter().map(show).collect::<Vec<_>>().join(", "))
}

/// Partitions are set off by a slash, nodes by a comma.
fn replicas(text: &str) -> Vec<v1::Replicas> {
    let nodes = |text: &str| text.split(',').map(|node| node.parse().unwrap()).collect();
    text.split('/').map(|partition| v1::Replicas { nodes: nodes(partition) }).collect()
}

fn config(command: &Command) -> v1::TopicConfig {
    v1::TopicConfig {
        retention_ms: command.find_number("retention_ms"),
        retention_bytes: command.find_number("retention_bytes"),
        batch_bytes_max: command.find_number("batch_bytes_max"),
        timestamp_type: command.find_number("timestamp_type"),
        timestamp_ahead_max_ms: command.find_number("ahead_ms"),
    }
}

fn wire(command: &Command) -> Wire {
    let name = || command.text("name");
    let optional = |name| command.find(name).unwrap_or_default().to_owned();
    let chosen = || command.find("replicas").map(replicas).unwrap_or_default();
    match command.verb.as_str() {
        "register" => Wire::RegisterNode(v1::RegisterNode {
            node_id: command.number("node"),
            address: command.text("address"),
            peer_address: optional("peer"),
            rack: optional("rack"),
            directory_id: command.find("directory").map(|_| command.bytes("directory")).unwrap_or_default().into(),
        }),
        "set_state" => Wire::SetNodeState(v1::SetNodeState { node_id: command.number("node"), state: command.number("state") }),
        "remove" => Wire::RemoveNode(v1::RemoveNode { node_id: command.number("node") }),
        "move" => Wire::StartMove(v1::StartMove { group_id: command.number("group"), target: chosen().pop() }),
        "cancel" => Wire::CancelMove(v1::CancelMove { group_id: command.number("group") }),
        "finish" => Wire::FinishMove(v1::FinishMove {
            group_id: command.number("group"),
            replicas: chosen().pop(),
            move_epoch: command.find_number("epoch").unwrap_or_default(),
        }),
        "begin_replica_ids" => Wire::BeginReplicaIds(v1::BeginReplicaIds {}),
        "establish" => {
            let replica_ids = command.text("ids").split(',').map(|id| id.parse().unwrap()).collect();
            let groups = vec![v1::EstablishedReplicas { group_id: command.number("group"), replica_ids }];
            Wire::EstablishReplicas(v1::EstablishReplicas { groups })
        }
        "renew" => {
            Wire::RenewReplica(v1::RenewReplica { group_id: command.number("group"), replica_id: command.number("replica") })
        }
        "create" => Wire::CreateTopic(v1::CreateTopic {
            name: name(),
            topic_id: command.bytes("id").into(),
            replication_factor: command.find_number("copies").unwrap_or(1),
            config: Some(config(command)),
            partitions: chosen(),
        }),
        "alter" => Wire::AlterTopic(v1::AlterTopic { name: name(), config: Some(config(command)) }),
        "add_partitions" => {
            Wire::AddPartitions(v1::AddPartitions { name: name(), partition_count: command.number("total"), added: chosen() })
        }
        "delete" => Wire::DeleteTopic(v1::DeleteTopic { name: name() }),
        "producer_ids" => Wire::AllocateProducerIds(v1::AllocateProducerIds { count: command.number("count") }),
        verb => panic!("there is no command {verb}"),
    }
}

fn show_value(table: u8, value: &[u8]) -> String {
    match table {
        table::CONTROLLER_META => format!("{:?}", v1::ControllerMeta::decode(value).unwrap()),
        table::NODE => format!("{:?}", v1::StoredNode::decode(value).unwrap()),
        table::TOPIC => format!("{:?}", v1::StoredTopic::decode(value).unwrap()),
        table => panic!("table {table} is not the controller's"),
    }
}
