//! The formats: round trips, hostile bytes, and that the layout does not change by accident.

use proptest::prelude::*;

use super::super::frame::end_offset;
use super::super::index::Index;
use super::*;

fn decision() -> impl Strategy<Value = Decision> {
    let kept = (0..u64::MAX / 2, 1..u32::MAX, any::<i64>());
    prop::option::of(kept).prop_map(|kept| match kept {
        None => Decision::Drop,
        Some((base_offset, offset_count, max_timestamp_ms)) => {
            Decision::Keep(Kept { base_offset, offset_count, max_timestamp_ms })
        }
    })
}

fn header() -> impl Strategy<Value = FrameHeader> {
    let item = (0_u32..1000, any::<u32>(), any::<u8>(), decision())
        .prop_map(|(payload_bytes, payload_crc, kind, decision)| ItemHeader { payload_bytes, payload_crc, kind, decision });
    (any::<u64>(), 0..u64::MAX, prop::collection::vec(item, 0..6)).prop_map(|(term, index, mut items)| {
        let mut next = 0;
        for item in &mut items {
            if let Some(kept) = item.kept() {
                let kept = Kept { base_offset: next, ..kept };
                item.decision = Decision::Keep(kept);
                next = end_offset(&kept).unwrap();
            }
        }
        FrameHeader { log_id: LogId { term, index }, last_index: index, body: BodyKind::Items, items }
    })
}

proptest! {
    #[test]
    fn every_header_comes_back(header in header(), behind: Vec<u8>) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend(&behind);
        prop_assert_eq!(FrameHeader::decode(&bytes), Ok(header));
    }

    #[test]
    fn a_changed_header_is_refused(header in header(), place: prop::sample::Index, bit in 0..8) {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        let place = place.index(bytes.len());
        bytes[place] ^= 1_u8 << bit;
        prop_assert!(FrameHeader::decode(&bytes).is_err());
        prop_assert!(FrameHeader::decode(&bytes[..place]).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes: Vec<u8>) {
        prop_assert!(FrameHeader::decode(&bytes).is_err());
        prop_assert!(Index::decode(&bytes).is_none());
        bytes.splice(0..0, *b"FRM1");
        prop_assert!(FrameHeader::decode(&bytes).is_err());
        bytes.splice(0..4, *b"FLTIDX01");
        prop_assert!(Index::decode(&bytes).is_none());
    }

    #[test]
    fn every_index_comes_back(headers in prop::collection::vec(header(), 0..20), interval in 1..500_u64, crc: u32) {
        let mut index = Index::new(5, 0, 32);
        for header in &headers {
            index.observe(header, interval);
        }
        let bytes = index.encode(crc);
        prop_assert_eq!(Index::decode(&bytes), Some((index, crc)));
        prop_assert!(Index::decode(&bytes[..bytes.len() - 1]).is_none());
    }
}

/// Segments are on disk for ever: this layout must not change.
#[test]
fn the_layout_stands() {
    let kept = Kept { base_offset: 0x1112, offset_count: 0x13, max_timestamp_ms: 0x14 };
    let item = ItemHeader { payload_bytes: 5, payload_crc: 0x0a0b_0c0d, kind: 9, decision: Decision::Keep(kept) };
    let log_id = LogId { term: 3, index: 0x0102 };
    let mut bytes = Vec::new();
    FrameHeader { log_id, last_index: 0x0102, body: BodyKind::Items, items: vec![item] }.encode(&mut bytes);
    let expected = [
        &b"FRM1"[..],
        &bytes[4..8],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0],
        &[5, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a],
        &[9, 1, 0, 0, 0x13, 0, 0, 0],
        &[0x12, 0x11, 0, 0, 0, 0, 0, 0],
        &[0x14, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes, expected.concat());
    assert_eq!(bytes[4..8], crc32c::crc32c(&bytes[8..]).to_le_bytes());
}
