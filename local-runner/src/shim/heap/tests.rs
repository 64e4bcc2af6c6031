//! Page counts are exact, undo is byte-exact, growth included. Accesses here come from the host; faults raised by
//! WebAssembly code are tested with the engine.

use super::*;

const P: u64 = PAGE as u64;

fn heap(pages: u32) -> Heap {
    let mut heap = Heap::new(pages, 64).unwrap();
    heap.begin().unwrap();
    heap
}

fn byte(heap: &mut Heap, offset: u64) -> u8 {
    let mut out = [0];
    heap.read(offset, &mut out).unwrap();
    out[0]
}

fn counts(heap: &Heap) -> (u64, u64) {
    let counts = heap.region.counts();
    (counts.accessed, counts.written)
}

#[test]
fn counts_each_page_once_per_execution() {
    let mut heap = heap(8);
    heap.write(10, &[1, 2, 3]).unwrap();
    heap.write(20, &[4]).unwrap();
    assert_eq!(byte(&mut heap, 3 * P), 0);
    assert_eq!(byte(&mut heap, 3 * P + 9), 0);
    assert_eq!(counts(&heap), (2, 1));
    heap.write(P - 1, &[9, 9]).unwrap();
    assert_eq!(counts(&heap), (3, 2));
    heap.write(3 * P, &[9]).unwrap();
    assert_eq!(counts(&heap), (3, 3));
    heap.end(true).unwrap();
    heap.begin().unwrap();
    assert_eq!(counts(&heap), (0, 0));
    assert_eq!(byte(&mut heap, P), 9);
    assert_eq!(counts(&heap), (1, 0));
}

#[test]
fn zero_length_accesses_touch_nothing_and_the_end_is_exact() {
    let mut heap = heap(2);
    heap.write(2 * P, &[]).unwrap();
    heap.read(0, &mut []).unwrap();
    assert_eq!(counts(&heap), (0, 0));
    assert_eq!(heap.write(2 * P - 1, &[1, 2]), Err(HeapRange { offset: 2 * P - 1, len: 2, size: 2 * P }));
    assert!(heap.region.check(u64::MAX, 2).is_err());
    assert_eq!(counts(&heap), (0, 0));
}

#[test]
fn undoes_one_run_and_keeps_the_earlier_one() {
    let mut heap = heap(4);
    heap.write(0, &[1; 100]).unwrap();
    heap.end(true).unwrap();
    heap.begin().unwrap();
    heap.write(50, &[2; 100]).unwrap();
    heap.write(2 * P, &[3; 100]).unwrap();
    assert!(heap.region.grow_to(6 * PAGE));
    heap.write(5 * P, &[4; 100]).unwrap();
    heap.end(false).unwrap();
    assert_eq!(heap.size(), 4 * P);
    let mut all = vec![0; 4 * PAGE];
    heap.read(0, &mut all).unwrap();
    assert!(all[..100].iter().all(|&b| b == 1));
    assert!(all[100..].iter().all(|&b| b == 0));
    heap.begin().unwrap();
    assert!(heap.region.grow_to(6 * PAGE));
    assert_eq!(byte(&mut heap, 5 * P), 0, "grown pages are zero again");
}

#[test]
fn rolls_back_to_the_last_commit_over_several_runs() {
    let mut heap = heap(3);
    heap.write(P, &[7; 10]).unwrap();
    heap.end(true).unwrap();
    heap.commit().unwrap();
    for round in 0..5u8 {
        heap.begin().unwrap();
        heap.write(P, &[round; 10]).unwrap();
        heap.write(2 * P, &[round + 1; 10]).unwrap();
        let size = heap.size() as usize;
        assert!(heap.region.grow_to(size + PAGE));
        heap.write(size as u64, &[1]).unwrap();
        heap.end(round != 3).unwrap();
    }
    assert_eq!(heap.size(), 7 * P);
    assert_eq!((byte(&mut heap, P), byte(&mut heap, 2 * P)), (4, 5));
    heap.rollback().unwrap();
    assert_eq!(heap.size(), 3 * P);
    assert_eq!((byte(&mut heap, P), byte(&mut heap, 2 * P)), (7, 0));
}

#[test]
fn a_commit_cannot_be_taken_back() {
    let mut heap = heap(1);
    heap.write(0, &[5]).unwrap();
    heap.end(true).unwrap();
    heap.commit().unwrap();
    heap.rollback().unwrap();
    assert_eq!(byte(&mut heap, 0), 5);
}

#[test]
fn pages_that_were_closed_for_lack_of_mappings_keep_their_state() {
    let mut heap = heap(4);
    heap.write(0, &[1]).unwrap();
    heap.end(true).unwrap();
    heap.commit().unwrap();
    heap.begin().unwrap();
    heap.write(0, &[2]).unwrap();
    assert_eq!(byte(&mut heap, P), 0);
    heap.region.with(Tracker::close_whole).unwrap();
    assert_eq!(byte(&mut heap, 0), 2);
    heap.write(0, &[3]).unwrap();
    assert_eq!(byte(&mut heap, P), 0);
    assert_eq!(counts(&heap), (2, 1), "nothing is counted again");
    heap.end(false).unwrap();
    assert_eq!(byte(&mut heap, 0), 1, "the first saved bytes win");
}

#[test]
fn growth_stops_at_the_maximum() {
    let heap = heap(1);
    assert!(heap.region.grow_to(64 * PAGE));
    assert!(!heap.region.grow_to(65 * PAGE));
    assert!(!heap.region.grow_to(PAGE), "memory never shrinks by growing");
    assert!(matches!(Heap::new(3, 2), Err(HeapError::TooLarge { pages: 3, max_pages: 2 })));
}

#[test]
fn faults_outside_the_memory_are_not_served() {
    let heap = heap(2);
    let base = heap.region.base() as usize;
    assert!(!heap.region.handle_fault(base - 1, Some(false)));
    assert!(!heap.region.handle_fault(base + 2 * PAGE, Some(false)));
    assert!(heap.region.handle_fault(base + 2 * PAGE - 1, Some(false)));
    assert!(!heap.region.handle_fault(base + 2 * PAGE - 1, Some(false)), "an open page does not fault again");
    assert!(heap.region.handle_fault(base + 2 * PAGE - 1, Some(true)));
    assert_eq!(counts(&heap), (1, 1));
}

#[test]
fn an_unknown_fault_kind_is_a_read_first_and_then_a_write() {
    let heap = heap(1);
    let base = heap.region.base() as usize;
    assert!(heap.region.handle_fault(base, None));
    assert_eq!(counts(&heap), (1, 0));
    assert!(heap.region.handle_fault(base, None));
    assert_eq!(counts(&heap), (1, 1));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Any sequence of runs, kept or undone, commits and rollbacks gives the bytes of a plain model.
    #[test]
    fn follows_a_plain_model(steps in proptest::collection::vec((0u8..8, 0u64..6, 0u64..PAGE as u64 - 8, 1u8..255), 1..60)) {
        let mut heap = heap(2);
        let mut now = vec![0u8; 2 * PAGE];
        let mut at_run = now.clone();
        let mut at_commit = now.clone();
        for (kind, page, offset, value) in steps {
            let at = page * P + offset;
            match kind {
                0 => {
                    heap.end(true).unwrap();
                    heap.commit().unwrap();
                    heap.begin().unwrap();
                    (at_run, at_commit) = (now.clone(), now.clone());
                }
                1 => {
                    heap.end(false).unwrap();
                    heap.begin().unwrap();
                    now = at_run.clone();
                }
                2 => {
                    heap.end(true).unwrap();
                    heap.begin().unwrap();
                    at_run = now.clone();
                }
                3 => {
                    heap.end(true).unwrap();
                    heap.rollback().unwrap();
                    heap.begin().unwrap();
                    now = at_commit.clone();
                    at_run = now.clone();
                }
                4 if now.len() < 6 * PAGE => {
                    now.resize(now.len() + PAGE, 0);
                    assert!(heap.region.grow_to(now.len()));
                }
                _ if at + 8 <= now.len() as u64 => {
                    heap.write(at, &[value; 8]).unwrap();
                    now[at as usize..at as usize + 8].fill(value);
                }
                _ => assert!(heap.write(at, &[value; 8]).is_err()),
            }
        }
        proptest::prop_assert_eq!(heap.size(), now.len() as u64);
        let mut all = vec![1; now.len()];
        heap.read(0, &mut all).unwrap();
        proptest::prop_assert!(all == now);
    }
}
