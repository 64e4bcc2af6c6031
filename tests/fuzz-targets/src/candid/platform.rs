//! A platform for the canister's service that costs little to set up: every trial begins with the same stable memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ::candid::Principal;
use canister::env::Env;
use ic_stable_structures::Memory;
use model_core::profile::Counter;

/// Bytes of a page of memory.
const PAGE: usize = 65_536;
/// Most pages that a trial may have: 256 MiB.
const MAX_PAGES: u64 = 4096;

/// Stable memory: pages that were written, over others that stay as they are.
#[derive(Clone, Default)]
pub(super) struct Pages {
    base: Rc<Vec<u8>>,
    pages: Rc<Cell<u64>>,
    written: Rc<RefCell<BTreeMap<usize, Box<[u8]>>>>,
}

impl Pages {
    /// Memory with these bytes, which are whole pages.
    pub(super) fn over(base: Rc<Vec<u8>>) -> Self {
        Self { pages: Rc::new(Cell::new((base.len() / PAGE) as u64)), base, written: Rc::default() }
    }

    /// All its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.pages.get() as usize * PAGE];
        self.read(0, &mut bytes);
        bytes
    }

    /// Goes through the parts of pages that a range covers.
    fn each_part(offset: u64, len: usize, mut each: impl FnMut(usize, usize, std::ops::Range<usize>)) {
        let (mut at, end) = (offset as usize, offset as usize + len);
        while at < end {
            let (page, within) = (at / PAGE, at % PAGE);
            let count = (PAGE - within).min(end - at);
            let start = at - offset as usize;
            each(page, within, start..start + count);
            at += count;
        }
    }

    fn original(&self, page: usize) -> &[u8] {
        self.base.get(page * PAGE..(page + 1) * PAGE).unwrap_or(&[0; PAGE])
    }
}

impl Memory for Pages {
    fn size(&self) -> u64 {
        self.pages.get()
    }

    fn grow(&self, pages: u64) -> i64 {
        let before = self.pages.get();
        match before.checked_add(pages) {
            Some(after) if after <= MAX_PAGES => {
                self.pages.set(after);
                before as i64
            }
            _ => -1,
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        assert!(offset + into.len() as u64 <= self.size() * PAGE as u64, "a read beyond stable memory");
        let written = self.written.borrow();
        Self::each_part(offset, into.len(), |page, within, range| {
            let from = written.get(&page).map_or_else(|| self.original(page), |page| &**page);
            let count = range.len();
            into[range].copy_from_slice(&from[within..within + count]);
        });
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= self.size() * PAGE as u64, "a write beyond stable memory");
        let mut written = self.written.borrow_mut();
        Self::each_part(offset, bytes.len(), |page, within, range| {
            let to = written.entry(page).or_insert_with(|| self.original(page).into());
            to[within..within + range.len()].copy_from_slice(&bytes[range]);
        });
    }
}

thread_local! {
    /// The counter is a plain function, as on the platform.
    static INSTRUCTIONS: Cell<u64> = const { Cell::new(0) };
}

/// What each look at the counter costs, so that a message ends after some hundred units of work.
const PER_LOOK: u64 = 100_000_000;

fn look() -> u64 {
    INSTRUCTIONS.set(INSTRUCTIONS.get() + PER_LOOK);
    INSTRUCTIONS.get()
}

/// Who calls, and when; clones share it.
#[derive(Clone)]
pub(super) struct Platform(Rc<Message>);

struct Message {
    caller: Cell<Principal>,
    time_ns: Cell<u64>,
    timer: Cell<bool>,
}

impl Platform {
    pub(super) fn new() -> Self {
        let message = Message {
            caller: Cell::new(Principal::anonymous()),
            time_ns: Cell::new(1_700_000_000_000_000_000),
            timer: Cell::new(false),
        };
        Self(Rc::new(message))
    }

    /// A message of `caller` begins.
    pub(super) fn next_message(&self, caller: Principal) {
        INSTRUCTIONS.set(0);
        self.0.caller.set(caller);
        self.0.time_ns.set(self.0.time_ns.get() + 1_000_000_000);
    }

    /// Whether a timer is set; takes it.
    pub(super) fn take_timer(&self) -> bool {
        self.0.timer.take()
    }
}

/// The canister's own id.
const OWN_ID: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
/// Who may do everything.
pub(super) const CONTROLLER: Principal = Principal::from_slice(&[1, 1]);

impl Env for Platform {
    fn caller(&self) -> Principal {
        self.0.caller.get()
    }

    fn is_controller(&self, who: &Principal) -> bool {
        *who == CONTROLLER
    }

    fn time_ns(&self) -> u64 {
        self.0.time_ns.get()
    }

    fn instructions(&self) -> u64 {
        look()
    }

    fn counter(&self) -> Counter {
        look
    }

    fn heap_bytes(&self) -> u64 {
        0
    }

    fn own_id(&self) -> Principal {
        OWN_ID
    }

    fn cycles(&self) -> u128 {
        3_000_000_000_000
    }

    fn liquid_cycles(&self) -> u128 {
        2_000_000_000_000
    }

    fn certify(&self, _: &[u8; 32]) {}

    fn certificate(&self) -> Option<Vec<u8>> {
        None
    }

    fn wake_soon(&self) {
        self.0.timer.set(true);
    }

    fn watch_after(&self, _: u64) {}

    fn expire_after(&self, _: u64) {}

    fn log(&self, _: &str) {}
}
