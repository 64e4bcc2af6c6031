//! A canister's log: numbered records in a ring of limited size. It survives traps and rejected messages.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes that a record takes besides its text, as the platform counts them.
const RECORD_OVERHEAD_BYTES: usize = 16;

/// One record of a canister's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Number of the record; counts all records the canister ever wrote.
    pub index: u64,
    /// Time of the message, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Raw text, usually UTF-8.
    pub content: Vec<u8>,
}

impl LogRecord {
    /// The content as text; bytes that are not UTF-8 become replacement characters.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.content)
    }
}

/// The newest records of a canister, up to a number of bytes; by default none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterLog {
    records: VecDeque<LogRecord>,
    next_index: u64,
    used_bytes: usize,
    capacity_bytes: usize,
}

impl CanisterLog {
    /// An empty log that keeps `capacity_bytes`.
    pub fn new(capacity_bytes: u64) -> Self {
        let capacity_bytes = usize::try_from(capacity_bytes).unwrap_or(usize::MAX);
        Self { records: VecDeque::new(), next_index: 0, used_bytes: 0, capacity_bytes }
    }

    /// Records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &LogRecord> {
        self.records.iter()
    }

    /// Bytes that the log may hold.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes as u64
    }

    /// Changes how many bytes the log may hold, dropping the oldest records if need be.
    pub fn set_capacity(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = usize::try_from(capacity_bytes).unwrap_or(usize::MAX);
        self.make_room(0);
    }

    /// Appends a record; a text larger than the log is cut, older records make room.
    pub fn push(&mut self, time_ns: u64, content: &[u8]) {
        let room = self.capacity_bytes.saturating_sub(RECORD_OVERHEAD_BYTES);
        if room == 0 {
            return;
        }
        let content = &content[..content.len().min(room)];
        self.make_room(content.len() + RECORD_OVERHEAD_BYTES);
        self.records.push_back(LogRecord { index: self.next_index, time_ns, content: content.to_vec() });
        self.next_index += 1;
        self.used_bytes += content.len() + RECORD_OVERHEAD_BYTES;
    }

    fn make_room(&mut self, bytes: usize) {
        while self.used_bytes + bytes > self.capacity_bytes {
            let Some(oldest) = self.records.pop_front() else { return };
            self.used_bytes -= oldest.content.len() + RECORD_OVERHEAD_BYTES;
        }
    }

    /// Forgets all records; numbering goes on.
    pub fn clear(&mut self) {
        self.records.clear();
        self.used_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_records_and_numbers_all() {
        let mut log = CanisterLog::new(100);
        for n in 0..10u8 {
            log.push(n.into(), &[b'0' + n; 30]);
        }
        let kept: Vec<_> = log.records().map(|record| record.index).collect();
        assert_eq!(kept, [8, 9]);
        assert_eq!(log.records().next().unwrap().text(), "8".repeat(30));
    }

    #[test]
    fn cuts_a_text_larger_than_the_log() {
        let mut log = CanisterLog::new(40);
        log.push(1, &[b'x'; 100]);
        assert_eq!(log.records().next().unwrap().content.len(), 24);
        log.set_capacity(20);
        assert_eq!(log.records().count(), 0);
        log.push(2, b"abcdef");
        assert_eq!(log.records().next().unwrap().text(), "abcd");
    }
}
