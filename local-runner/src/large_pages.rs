//! Large pages for weights: a fault for every 2 MiB instead of 4 KiB, which is a third of the time that loading takes.

use std::mem::MaybeUninit;

/// Asks the system to serve this memory with large pages where it can. What it answers costs time and nothing else.
pub fn ask(memory: &mut [MaybeUninit<u8>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let start = memory.as_mut_ptr();
        let before = start.addr() % PAGE;
        // SAFETY: the advice changes no byte and no right of access, of the neighbours on the first and last page neither.
        unsafe { libc::madvise(start.wrapping_byte_sub(before).cast(), memory.len() + before, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// The flags of the mapping that holds `address`, by the system's own account.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let holds = |line: &str| {
            let range = line.split(' ').next()?.split_once('-')?;
            let [first, end] = [range.0, range.1].map(|text| usize::from_str_radix(text, 16));
            Some((first.ok()?..end.ok()?).contains(&address))
        };
        let mut lines = maps.lines().skip_while(|line| !holds(line).unwrap_or_default());
        lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap().to_owned()
    }

    #[test]
    fn the_system_knows_that_large_pages_are_wanted() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            return;
        }
        let mut memory: Vec<u8> = Vec::with_capacity(64 << 20);
        let middle = memory.as_ptr().addr() + (32 << 20);
        assert!(!flags(middle).contains(" hg"));
        ask(memory.spare_capacity_mut());
        assert!(flags(middle).contains(" hg"));
    }
}
