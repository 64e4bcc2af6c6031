//! How resumable work learns that it has to stop. On the IC a budget watches the instruction counter,
//! natively it is usually [`Unlimited`].

/// Asked after each unit of work (a layer of a batch, a block of rows while packing).
pub trait Budget {
    /// Whether the next unit should be left to a later call.
    ///
    /// The worker asks after each unit and never before the first, so that every call makes progress.
    fn exhausted(&mut self) -> bool;
}

/// Never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Budget for Unlimited {
    fn exhausted(&mut self) -> bool {
        false
    }
}

/// Stops after a fixed number of units (at least one).
#[derive(Debug, Clone, Copy)]
pub struct CountDown {
    left: u64,
}

impl CountDown {
    /// Allows `units` units of work.
    pub fn new(units: u64) -> Self {
        Self { left: units }
    }
}

impl Budget for CountDown {
    fn exhausted(&mut self) -> bool {
        self.left = self.left.saturating_sub(1);
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_down_allows_the_given_units_and_always_one() {
        for (units, allowed) in [(0, 1), (1, 1), (3, 3)] {
            let mut budget = CountDown::new(units);
            let mut done = 1;
            while !budget.exhausted() {
                done += 1;
            }
            assert_eq!(done, allowed);
        }
    }
}
