//! When a call has to stop computing: the instruction counter against a ceiling, with the cost of the
//! next unit of work learned from the units before it. Knows nothing of what the units are.

use std::cell::Cell;

use model_core::budget::Budget;

use crate::env::Env;

/// Distinct bytes of stable memory that one call reads at most. The platform's limit is 2 GiB of pages
/// per message; a quarter is left for maps and for pages read in part.
const STABLE_BYTES_PER_CALL: u64 = 3 << 29;

/// The budget of one call. The worker asks after each unit, so that even an exhausted budget lets every
/// call do one.
#[derive(Debug)]
pub struct CallBudget<'a, E> {
    env: &'a E,
    start: u64,
    ceiling: u64,
    last: u64,
    costliest: u64,
    stable_read: Option<&'a Cell<u64>>,
}

impl<'a, E: Env> CallBudget<'a, E> {
    /// Stops before the message's counter passes `ceiling`, or after `max_instructions` from now.
    pub fn new(env: &'a E, ceiling: u64, max_instructions: Option<u64>) -> Self {
        let start = env.instructions();
        let ceiling = max_instructions.map_or(ceiling, |max| ceiling.min(start.saturating_add(max)));
        Self { env, start, ceiling, last: start, costliest: 0, stable_read: None }
    }

    /// Stops too when `read`, the bytes read from stable memory in this call, becomes too much for one message.
    pub fn watching_stable_reads(mut self, read: &'a Cell<u64>) -> Self {
        read.set(0);
        self.stable_read = Some(read);
        self
    }

    /// Instructions since the budget was made.
    pub fn used(&self) -> u64 {
        self.env.instructions().saturating_sub(self.start)
    }
}

impl<E: Env> Budget for CallBudget<'_, E> {
    fn exhausted(&mut self) -> bool {
        let now = self.env.instructions();
        self.costliest = self.costliest.max(now.saturating_sub(self.last));
        self.last = now;
        // A quarter more than the costliest unit: attention grows with the position.
        let next = self.costliest.saturating_add(self.costliest / 4);
        now.saturating_add(next) > self.ceiling
            || self.stable_read.is_some_and(|read| read.get() >= STABLE_BYTES_PER_CALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeEnv;

    #[test]
    fn stops_before_a_unit_like_the_costliest_would_pass_the_ceiling() {
        let env = FakeEnv::default();
        let mut budget = CallBudget::new(&env, 1000, None);
        env.spend(400);
        assert!(!budget.exhausted(), "400 + 500 fit");
        env.spend(100);
        assert!(!budget.exhausted(), "500 + 500 just fit");
        env.spend(1);
        assert!(budget.exhausted(), "501 + 500 do not");
        assert_eq!(budget.used(), 501);
    }

    #[test]
    fn the_callers_limit_counts_from_the_start_of_the_call() {
        let env = FakeEnv::default();
        env.spend(700);
        let mut budget = CallBudget::new(&env, 1000, Some(200));
        env.spend(88);
        assert!(!budget.exhausted(), "788 + 110 fit into 900");
        env.spend(88);
        assert!(budget.exhausted());
        assert!(CallBudget::new(&env, 1000, Some(u64::MAX)).ceiling == 1000);
    }

    #[test]
    fn stops_when_too_much_stable_memory_was_read() {
        let env = FakeEnv::default();
        let read = Cell::new(7);
        let mut budget = CallBudget::new(&env, 1000, None).watching_stable_reads(&read);
        assert!(!budget.exhausted());
        read.set(STABLE_BYTES_PER_CALL);
        assert!(budget.exhausted());
    }
}
