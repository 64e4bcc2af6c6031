//! Sets of characters.

/// First and last of the numbers that are no characters.
const SURROGATES: (u32, u32) = (0xD800, 0xDFFF);
const LAST: u32 = char::MAX as u32;

/// A set of Unicode characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    /// Bit n: whether U+n belongs to it.
    ascii: u128,
    /// First and last, ascending, apart from each other, without surrogates.
    ranges: Vec<(u32, u32)>,
}

impl Class {
    /// The characters of all ranges (first and last of each).
    pub(crate) fn new(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len() + 1);
        for (first, last) in ranges.into_iter().flat_map(without_surrogates) {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        let ascii = (0..128).filter(|&code| find(&joined, code)).fold(0, |ascii, code| ascii | 1 << code);
        Self { ascii, ranges: joined }
    }

    /// Every character.
    pub(crate) fn any() -> Self {
        Self::new(vec![(0, LAST)])
    }

    /// One character.
    pub(crate) fn one(code: u32) -> Self {
        Self::new(vec![(code, code)])
    }

    /// All other characters.
    pub(crate) fn complement(&self) -> Self {
        let mut free = 0;
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        for &(first, last) in &self.ranges {
            if free < first {
                ranges.push((free, first - 1));
            }
            free = last + 1;
        }
        if free <= LAST {
            ranges.push((free, LAST));
        }
        Self::new(ranges)
    }

    /// Whether the character belongs to it.
    pub(crate) fn contains(&self, code: u32) -> bool {
        if code < 128 { self.ascii >> code & 1 != 0 } else { find(&self.ranges, code) }
    }

    /// Whether one of the characters from `first` to `last` belongs to it; there are none if `last` is before `first`.
    pub(crate) fn meets(&self, first: u32, last: u32) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < first);
        first <= last && self.ranges.get(at).is_some_and(|range| range.0 <= last)
    }
}

fn find(ranges: &[(u32, u32)], code: u32) -> bool {
    let at = ranges.partition_point(|range| range.1 < code);
    ranges.get(at).is_some_and(|range| range.0 <= code)
}

/// The parts of a range below and above the surrogates.
fn without_surrogates((first, last): (u32, u32)) -> impl Iterator<Item = (u32, u32)> {
    let below = (first, last.min(SURROGATES.0 - 1));
    let above = (first.max(SURROGATES.1 + 1), last.min(LAST));
    [below, above].into_iter().filter(|(first, last)| first <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: char, last: char) -> (u32, u32) {
        (first as u32, last as u32)
    }

    #[test]
    fn ranges_are_joined_and_found() {
        let class = Class::new(vec![range('x', 'z'), range('a', 'c'), range('d', 'f'), range('é', 'é')]);
        assert_eq!(class.ranges, [range('a', 'f'), range('x', 'z'), range('é', 'é')]);
        for (character, inside) in [('a', true), ('f', true), ('g', false), ('y', true), ('é', true), ('è', false)] {
            assert_eq!(class.contains(character as u32), inside, "{character}");
        }
        assert!(class.meets('g' as u32, 'x' as u32) && !class.meets('g' as u32, 'w' as u32));
    }

    #[test]
    fn surrogates_belong_to_no_class() {
        let class = Class::new(vec![(0xD000, 0xE000)]);
        assert!(class.contains(0xD7FF) && class.contains(0xE000));
        assert!(!class.contains(0xD800) && !class.contains(0xDFFF));
        assert!(!Class::any().meets(0xD800, 0xDFFF) && !Class::any().contains(0x11_0000));
    }

    #[test]
    fn a_complement_has_all_others() {
        let class = Class::new(vec![range('b', 'y'), (0, 10)]);
        let others = class.complement();
        for code in (0..300).chain([0xD7FF, 0xE000, 0x10_FFFF]) {
            assert_ne!(class.contains(code), others.contains(code), "{code}");
        }
        assert_eq!(others.complement(), class);
        assert_eq!(Class::any().complement().ranges, []);
        assert_eq!(Class::new(Vec::new()).complement(), Class::any());
    }
}
