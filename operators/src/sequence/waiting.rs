//! The bytes of an event that waits to be walked over: its point, and what is told of it should it stand behind a gap.

use super::walk::Point;
use super::{Numbered, column};
use crate::profile::{Spot, read_spot, read_text, read_varint, varint, write_spot, write_text};
use crate::state::CodecError;

const WRONG: CodecError = CodecError("numbered event");

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Waiting {
    pub(super) point: Point,
    pub(super) place: Spot,
    pub(super) kafka_time_ms: i64,
    pub(super) schema_id: u32,
    pub(super) tenant: Vec<u8>,
    /// SDK, its version, the app's version.
    pub(super) release: [Vec<u8>; 3],
}

impl Waiting {
    pub(super) fn of_row(numbered: &Numbered<'_>, row: usize) -> Waiting {
        let text = |at: usize| numbered.text(at - column::TENANT, row).to_vec();
        Waiting {
            point: (numbered.times[row], numbered.numbers[row]),
            place: Spot(numbered.topics[row], numbered.partitions[row], numbered.offsets[row]),
            kafka_time_ms: numbered.kafka_times[row],
            schema_id: numbered.schemas[row],
            tenant: text(column::TENANT),
            release: std::array::from_fn(|part| text(column::RELEASE + part)),
        }
    }

    /// Appends the event; its time is told from `start`, which is at most that.
    pub(super) fn write(&self, start: i64, out: &mut Vec<u8>) {
        varint(self.point.0.abs_diff(start), out);
        varint(self.point.1 as u64, out);
        write_spot(self.place, out);
        varint(self.kafka_time_ms as u64, out);
        varint(u64::from(self.schema_id), out);
        write_text(&self.tenant, out);
        self.release.iter().for_each(|part| write_text(part, out));
    }

    /// Reads what [`Waiting::write`] wrote.
    pub(super) fn read(start: i64, mut bytes: &[u8]) -> Result<Waiting, CodecError> {
        let bytes = &mut bytes;
        let point = (start.saturating_add_unsigned(read_varint(bytes)?), read_varint(bytes)? as i64);
        let (place, kafka_time_ms) = (read_spot(bytes)?, read_varint(bytes)? as i64);
        let schema_id = u32::try_from(read_varint(bytes)?).map_err(|_| WRONG)?;
        let tenant = read_text(bytes)?.to_vec();
        let mut release: [Vec<u8>; 3] = Default::default();
        for part in &mut release {
            *part = read_text(bytes)?.to_vec();
        }
        if !bytes.is_empty() {
            return Err(WRONG);
        }
        Ok(Waiting { point, place, kafka_time_ms, schema_id, tenant, release })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_an_event_that_waits() {
        let waiting = Waiting {
            point: (1_000_300, 7),
            place: Spot(1, 2, 400),
            kafka_time_ms: -1,
            schema_id: 9,
            tenant: b"acme".to_vec(),
            release: [b"web".to_vec(), Vec::new(), b"2".to_vec()],
        };
        let mut bytes = Vec::new();
        waiting.write(1_000_000, &mut bytes);
        let golden =
            b"\xac\x02\x07\x01\x02\x90\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x09\x04acme\x03web\x00\x012";
        assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string());
        assert_eq!(Waiting::read(1_000_000, &bytes), Ok(waiting));
        for cut in 0..bytes.len() {
            assert!(Waiting::read(1_000_000, &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
