//! The commands of partition scripts.

use flotilla_machines::partition::{PartitionMachine, command_payload};
use flotilla_machines::{item, table};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::partition_command::Command as Wire;
use prost::Message;

use crate::common::{Stamp, Store, batch};
use crate::script::{self, Command, show_changes, show_outcome, show_rows};

#[derive(Default)]
pub struct Session {
    machine: PartitionMachine,
    store: Store,
}

impl script::Session for Session {
    fn run(&mut self, command: &Command) -> String {
        let (kind, payload) = match command.verb.as_str() {
            "clock" => (item::CLOCK, item::clock_payload(command.number("ms"))),
            "stamp" => (item::STAMP, item::stamp_payload(&stamp(command))),
            "append" => (item::BATCH, append(command)),
            "raw" => (command.number("kind"), command.bytes("hex").into()),
            "restore" => return self.restore(),
            "rows" => return show_rows(&self.store),
            "state" => return self.state(),
            _ => (item::COMMAND, command_payload(wire(command))),
        };
        let applied = self.machine.apply(kind, &payload, &mut self.store);
        let changes = show_changes(self.store.take_changes(), show_value);
        format!("{}{:?}\n{changes}", show_outcome(&applied.outcome), applied.decision)
    }
}

impl Session {
    fn restore(&mut self) -> String {
        let restored = PartitionMachine::restore(self.store.rows()).unwrap();
        assert_eq!(restored, self.machine);
        self.machine = restored;
        "the same machine".to_owned()
    }

    fn state(&self) -> String {
        let machine = &self.machine;
        let (start, next, time) = (machine.log_start_offset(), machine.next_offset(), machine.time());
        let (now, dated, producers) = (time.now_ms, time.dated_ms, machine.producer_count());
        let mut out = format!("log {start}..{next}, time {now} ms, dated {dated} ms, {producers} producers\n");
        for (name, group) in machine.groups() {
            out += &format!("group {name}: {group:?}\n");
        }
        out
    }
}

fn stamp(command: &Command) -> v1::Stamp {
    v1::Stamp {
        now_ms: command.number("now_ms"),
        dated_ms: command.number("dated_ms"),
        timestamp_ahead_max_ms: command.find_number("ahead_ms"),
    }
}

fn append(command: &Command) -> bytes::Bytes {
    let stamp = command.find("producer").map(|text| {
        let mut numbers = text.split(':').map(|number| number.parse::<i64>().unwrap());
        let mut next = || numbers.next().expect("producer=ID:EPOCH:SEQUENCE");
        Stamp { id: next(), epoch: next() as i16, sequence: next() as i32 }
    });
    batch(stamp, command.number("records"), command.find_number("max_timestamp_ms").unwrap_or(0))
}

fn fence(text: &str) -> v1::GroupFence {
    let (epoch, member) = text.split_once(':').expect("fence=EPOCH:MEMBER");
    v1::GroupFence { epoch: epoch.parse().unwrap(), member: member.to_owned() }
}

fn wire(command: &Command) -> Wire {
    let group = || command.text("group");
    let metadata = || command.find("metadata").unwrap_or_default().to_owned();
    match command.verb.as_str() {
        "delete_records" => Wire::DeleteRecords(v1::DeleteRecords { before_offset: command.number("before") }),
        "commit" => Wire::CommitOffset(v1::CommitOffset {
            group: group(),
            offset: command.number("offset"),
            metadata: metadata(),
            fence: command.find("fence").map(fence),
        }),
        "raise" => Wire::RaiseFence(v1::RaiseFence { group: group(), fence: command.find("fence").map(fence) }),
        "force" => Wire::ForceCommit(v1::ForceCommit {
            group: group(),
            epoch: command.number("epoch"),
            offset: command.number("offset"),
            metadata: metadata(),
        }),
        "delete_group" => Wire::DeleteGroup(v1::DeleteGroup { group: group() }),
        verb => panic!("there is no command {verb}"),
    }
}

fn show_value(table: u8, value: &[u8]) -> String {
    match table {
        table::PARTITION_META => format!("{:?}", v1::PartitionMeta::decode(value).unwrap()),
        table::PRODUCER => format!("{:?}", v1::StoredProducer::decode(value).unwrap()),
        table::GROUP => format!("{:?}", v1::StoredGroup::decode(value).unwrap()),
        table => panic!("table {table} is not a partition's"),
    }
}
