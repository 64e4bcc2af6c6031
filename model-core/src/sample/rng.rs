//! The random numbers of sampling: PCG32, fully specified, the same on every target.

const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
/// The stream constant of the published demonstration (stream 54), so that its test vectors hold here.
const INCREMENT: u64 = (54 << 1) | 1;

/// PCG-XSH-RR 64/32 (O'Neill 2014), on one fixed stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcg32 {
    state: u64,
}

impl Pcg32 {
    /// The generator that `pcg32_srandom(seed, 54)` of the reference implementation makes.
    pub fn new(seed: u64) -> Self {
        let mut rng = Self { state: 0 };
        rng.next_u32();
        rng.state = rng.state.wrapping_add(seed);
        rng.next_u32();
        rng
    }

    /// A generator that goes on where [`Pcg32::state`] was read.
    pub fn from_state(state: u64) -> Self {
        Self { state }
    }

    /// All there is to keep of a generator.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
        let mixed = (((old >> 18) ^ old) >> 27) as u32;
        mixed.rotate_right((old >> 59) as u32)
    }

    /// The next number in `0.0..1.0`, a multiple of 2^-32.
    pub fn next_unit(&mut self) -> f64 {
        f64::from(self.next_u32()) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_published_numbers() {
        // pcg-c-basic, `pcg32-demo` with seed 42 and stream 54, round 1.
        let mut rng = Pcg32::new(42);
        let numbers: Vec<u32> = (0..6).map(|_| rng.next_u32()).collect();
        assert_eq!(numbers, [0xa15c_02b7, 0x7b47_f409, 0xba1d_3330, 0x83d2_f293, 0xbfa4_784b, 0xcbed_606e]);
    }

    #[test]
    fn goes_on_from_its_state() {
        let mut rng = Pcg32::new(7);
        rng.next_u32();
        let mut copy = Pcg32::from_state(rng.state());
        assert_eq!(rng.next_u32(), copy.next_u32());
    }

    #[test]
    fn units_lie_below_one() {
        let mut rng = Pcg32::new(1);
        assert!((0..1000).map(|_| rng.next_unit()).all(|unit| (0.0..1.0).contains(&unit)));
    }
}
