//! Whose turn it is among the sessions that the canister advances: their owners take turns, and each owner's sessions take
//! turns among themselves, so that many sessions get their owner no more than one. Knows nothing of models or memory.

use candid::Principal;
use model_core::model::CachePrecision;

use crate::session_head::{Driver, Head};

/// What of a session decides how much heap its cache can come to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// Tokens that it can come to hold.
    pub positions: u64,
    /// How exactly keys and values are kept.
    pub precision: CachePrecision,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    driver: Driver,
    cache: Cache,
    /// Tick of the last turn.
    turn: u64,
}

/// The sessions of one owner, in the order in which they came.
#[derive(Debug)]
struct Line {
    owner: Principal,
    sessions: Vec<Waiting>,
    /// Tick of the last turn.
    turn: u64,
}

/// Sessions that wait for their next turns.
#[derive(Debug, Default)]
pub struct Queue {
    /// Who came first, or has waited longest since a session of theirs ended, is first to get heap for a cache.
    lines: Vec<Line>,
    tick: u64,
}

impl Queue {
    /// Adds a session at the end of its owner's; nothing happens if it is there.
    pub fn push(&mut self, id: u64, head: &Head) {
        // Who comes has to wait for a round, like who had a turn just now: coming again and again gives no more turns.
        let turn = self.tick;
        let cache = Cache { positions: head.cache_positions, precision: head.kv_cache };
        let waiting = Waiting { id, driver: head.driver, cache, turn };
        match self.lines.iter_mut().find(|line| line.owner == head.owner) {
            None => self.lines.push(Line { owner: head.owner, sessions: vec![waiting], turn }),
            Some(line) if line.sessions.iter().all(|other| other.id != id) => line.sessions.push(waiting),
            Some(_) => {}
        }
    }

    /// Removes a session if it is there. Its owner goes behind the others in the order in which caches get heap.
    pub fn remove(&mut self, id: u64, owner: &Principal) {
        let Some(at) = self.lines.iter().position(|line| line.owner == *owner) else { return };
        let Some(line) = self.lines.get_mut(at) else { return };
        let before = line.sessions.len();
        line.sessions.retain(|waiting| waiting.id != id);
        if line.sessions.len() < before {
            let line = self.lines.remove(at);
            if !line.sessions.is_empty() {
                self.lines.push(line);
            }
        }
    }

    /// Sessions that run by themselves.
    pub fn runs(&self) -> usize {
        self.lines.iter().map(Line::runs).sum()
    }

    /// Whether a session runs by itself.
    pub fn any_run(&self) -> bool {
        self.lines.iter().any(|line| line.runs() > 0)
    }

    /// Sessions of `owner` that run by themselves.
    pub fn runs_of(&self, owner: &Principal) -> usize {
        self.lines.iter().find(|line| line.owner == *owner).map_or(0, Line::runs)
    }

    /// The session whose turn it is, of which the turn is noted. Only those take turns whose caches, of `bytes` each, fit
    /// into `room` together, so that no cache is built only to be dropped: the first of each owner, then the second of each,
    /// and so on; the very first fits always.
    pub fn next(&mut self, bytes: impl Fn(Cache) -> u64, room: u64) -> Option<u64> {
        let mut taken = 0u64;
        let mut next: Option<((u64, u64), usize, usize)> = None;
        let longest = self.lines.iter().map(|line| line.sessions.len()).max()?;
        'all: for index in 0..longest {
            for (at, line) in self.lines.iter().enumerate() {
                let Some(waiting) = line.sessions.get(index) else { continue };
                taken = taken.saturating_add(bytes(waiting.cache).max(1));
                if next.is_some() && taken > room {
                    break 'all;
                }
                let turns = (line.turn, waiting.turn);
                if next.is_none_or(|(least, ..)| turns < least) {
                    next = Some((turns, at, index));
                }
            }
        }
        let (_, at, index) = next?;
        self.tick += 1;
        let line = self.lines.get_mut(at)?;
        line.turn = self.tick;
        let waiting = line.sessions.get_mut(index)?;
        waiting.turn = self.tick;
        Some(waiting.id)
    }
}

impl Line {
    fn runs(&self) -> usize {
        self.sessions.iter().filter(|waiting| waiting.driver == Driver::Canister).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_head::Usage;
    use proptest::prelude::*;

    fn owner(number: u8) -> Principal {
        Principal::from_slice(&[number])
    }

    fn head(number: u8, driver: Driver, cache_positions: u64) -> Head {
        Head {
            owner: owner(number),
            model: [0; 32],
            created_ns: 0,
            updated_ns: 0,
            driver,
            finish: None,
            prompt_tokens: 1,
            generated_tokens: 0,
            remaining_tokens: 1,
            text_bytes: 0,
            cache_positions,
            kv_cache: CachePrecision::default(),
            usage: Usage::default(),
            record_bytes: 0,
            error: None,
        }
    }

    /// Session 10 × owner + index, for as many sessions as each owner has.
    fn queue(sessions: &[u64]) -> Queue {
        let mut queue = Queue::default();
        for (number, count) in (1..).zip(sessions) {
            (0..*count)
                .for_each(|index| queue.push(u64::from(number) * 10 + index, &head(number, Driver::Canister, 1)));
        }
        queue
    }

    fn turns(queue: &mut Queue, count: usize, room: u64) -> Vec<u64> {
        (0..count).map(|_| queue.next(|cache| cache.positions, room).unwrap()).collect()
    }

    #[test]
    fn owners_take_turns_and_their_sessions_among_themselves() {
        assert_eq!(turns(&mut queue(&[5, 1, 2]), 9, 99), [10, 20, 30, 11, 20, 31, 12, 20, 30]);
    }

    #[test]
    fn who_comes_again_and_again_gets_no_more_turns() {
        let mut queue = queue(&[1, 1]);
        let mut served = [0; 2];
        for round in 0..100 {
            let id = turns(&mut queue, 1, 99)[0];
            if id == 10 {
                served[0] += 1;
            } else {
                served[1] += 1;
                queue.remove(id, &owner(2));
                queue.push(20 + round, &head(2, Driver::Call, 1));
            }
        }
        assert_eq!(served, [50, 50]);
    }

    #[test]
    fn heap_goes_to_every_owner_before_it_goes_to_one_twice() {
        let mut queue = queue(&[9, 1, 1]);
        assert_eq!(turns(&mut queue, 6, 4), [10, 20, 30, 11, 20, 30]);
        assert_eq!(turns(&mut queue, 6, 3), [10, 20, 30, 10, 20, 30]);
        // With room for one only they come one after the other, and who had one stands behind the others.
        let mut order = Vec::new();
        while let Some(id) = queue.next(|cache| cache.positions, 1) {
            assert_eq!(turns(&mut queue, 3, 1), [id; 3]);
            order.push(id);
            queue.remove(id, &owner((id / 10) as u8));
        }
        assert_eq!(order, [10, 20, 30, 11, 12, 13, 14, 15, 16, 17, 18]);
    }

    #[test]
    fn runs_are_counted_for_each_owner() {
        let mut queue = queue(&[3, 1]);
        queue.push(12, &head(1, Driver::Canister, 1));
        queue.push(40, &head(4, Driver::Call, 1));
        let runs = |queue: &Queue| [1, 2, 4].map(|number| queue.runs_of(&owner(number)));
        assert_eq!((runs(&queue), queue.runs()), ([3, 1, 0], 4));
        queue.remove(11, &owner(1));
        queue.remove(99, &owner(1));
        queue.remove(20, &owner(2));
        assert_eq!((runs(&queue), queue.runs(), queue.any_run()), ([2, 0, 0], 2, true));
        queue.remove(10, &owner(1));
        queue.remove(12, &owner(1));
        assert_eq!((queue.any_run(), turns(&mut queue, 2, 0)), (false, vec![40, 40]));
    }

    proptest! {
        #[test]
        fn between_two_turns_of_one_owner_no_other_gets_more_than_one(
            sessions in proptest::collection::vec(1u64..9, 1..6), room in 0u64..30,
        ) {
            let mut queue = queue(&sessions);
            let served: Vec<u64> = turns(&mut queue, 60, room).into_iter().map(|id| id / 10).collect();
            // As many owners as fit take turns.
            let owners = (sessions.len() as u64).min(room.max(1)) as usize;
            for window in served.windows(owners) {
                let distinct: std::collections::BTreeSet<_> = window.iter().collect();
                prop_assert_eq!(distinct.len(), owners, "{:?}", served);
            }
        }
    }
}
